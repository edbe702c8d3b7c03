"""Figures: closed forms where there are any, and invariants."""

import gc
import json
import sys

import pytest
import torch
from torch import nn

from lianzhi import deploy, measure
from lianzhi.errors import ArtifactError, DataError
from lianzhi.tasks import Task


def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 5))


def test_counts():
    model = net()
    assert measure.parameters(model) == 4 * 9 + 4 + 64 * 5 + 5
    for batch in (1, 3):
        assert measure.macs(model, torch.zeros(batch, 1, 4, 4)) == 16 * 4 * 9 + 64 * 5
    tied = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)])
    tied[1].weight = tied[0].weight
    assert measure.parameters(tied) == 9


def test_size(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_bytes(b"123")
    assert measure.size(tmp_path / "a") == 5
    assert measure.size(tmp_path) == 8
    (tmp_path / "a.data").write_bytes(b"1234567")
    assert measure.size(tmp_path / "a") == 12
    with pytest.raises(ArtifactError, match="no such file"):
        measure.size(tmp_path / "none")


def test_latency_names_what_it_depends_on(tmp_path):
    model = net()
    inputs = torch.zeros(2, 1, 4, 4)
    path = deploy.export_onnx(model, inputs, tmp_path / "m.onnx")
    for runtime, source in [("pytorch", model), ("onnxruntime", path), ("openvino", path)]:
        result = measure.latency(source, inputs, runtime=runtime, threads=1, repeats=5)
        assert (result.runtime, result.precision, result.batch, result.threads) == (runtime, "f32", 2, 1)
        assert 0 < result.median_ms <= result.p90_ms
        assert json.loads(json.dumps(result.to_dict()))["median_ms"] == result.median_ms
    with pytest.raises(DataError, match="repeats is 0"):
        measure.latency(model, inputs, repeats=0)
    assert gc.isenabled()


def test_a_slow_model_is_cut_short(monkeypatch):
    timing = sys.modules["lianzhi.measure.timing"]
    monkeypatch.setattr(timing, "MOST_SECONDS", 0.0)
    assert len(timing.time_calls(lambda: None, 50)) == timing.LEAST_REPEATS


def test_memory_of_a_module_counts_live_tensors():
    model = nn.Sequential(nn.Linear(10, 100, bias=False), nn.ReLU(), nn.Linear(100, 2, bias=False))
    weights, inputs = 4 * (1000 + 200), 4 * 10
    # the widest moment: the hidden layer before and after ReLU
    assert measure.memory(model, torch.zeros(1, 10)) == weights + inputs + 4 * 200


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_memory_of_a_file_grows_with_the_batch(tmp_path, runtime):
    path = deploy.export_onnx(
        nn.Sequential(nn.Linear(64, 64), nn.ReLU()), torch.zeros(1, 64), tmp_path / "m.onnx"
    )
    small = measure.memory(path, torch.zeros(1, 64), runtime=runtime, threads=1)
    large = measure.memory(path, torch.zeros(100_000, 64), runtime=runtime, threads=1)
    assert large - small > 0.9 * 4 * 64 * 100_000


def batches(sizes):
    return [(torch.randn(size, 3), torch.arange(size) % 4) for size in sizes]


def test_evaluate_counts_every_sample_once():
    data = batches([4, 4, 3])
    task = Task(validation=data, num_classes=4)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.9))
    model[1].eval()
    result = measure.evaluate(model, task)
    inputs, labels = (torch.cat(parts) for parts in zip(*data, strict=True))
    right = (model[0](inputs).argmax(1) == labels).sum().item()
    assert result.value == pytest.approx(right / 11)
    assert (result.samples, result.split, result.metric) == (11, "validation", "top1")
    assert model.training
    assert not model[1].training
    assert measure.evaluate(model[0].forward, task).value == result.value
    assert measure.evaluate(model, task, batch_size=2).value == result.value


def test_evaluate_a_metric_of_the_whole_and_structured_outputs():
    data = batches([4, 4])

    def spread(outputs, labels):
        assert outputs["logits"].shape == (8, 4)
        return float(outputs["logits"].std() * 0 + len(labels))

    task = Task(test=data, metrics={"spread": spread}, loss=lambda outputs, labels: outputs["logits"].sum())
    assert measure.evaluate(lambda x: {"logits": x @ torch.ones(3, 4), "none": None}, task).value == 8


def test_evaluate_refuses_a_split_that_repeats_samples():
    class Wraps:
        name, reported, metrics, metric = "wraps", "test", {"m": lambda o, y: 0.0}, "m"

        def size(self, split):
            return 3

        def steps(self, split, batch_size):
            return 2

        def condense(self, outputs, labels):
            return outputs, labels

        def batches(self, split, batch_size, rank, world):
            for ids in ([0, 1], [2, 0]):
                yield type(
                    "Batch",
                    (),
                    {"inputs": torch.zeros(2, 1), "labels": torch.zeros(2), "ids": torch.tensor(ids)},
                )

    with pytest.raises(DataError, match="has 3 samples, and the evaluation saw 4, 3 of them different"):
        measure.evaluate(lambda x: x, Wraps())


def test_environment_is_json_and_names_the_processor():
    facts = json.loads(json.dumps(measure.environment()))
    assert facts["cores"] >= 1
    assert facts["cpu"]
    assert facts["torch"] == torch.__version__
    assert {"has_vnni", "has_amx", "onnxruntime", "python", "lianzhi"} <= set(facts)


def test_which_processors_saturate():
    make = lambda **facts: measure.Cpu(  # noqa: E731
        **{
            "name": "",
            "architecture": "x86_64",
            "cores": 1,
            "has_vnni": False,
            "has_amx": False,
            "has_bf16": False,
        }
        | facts
    )
    assert make().saturates
    assert not make(has_vnni=True).saturates
    assert not make(has_amx=True).saturates
    assert not make(architecture="aarch64").saturates
