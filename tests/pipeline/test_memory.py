"""Peak memory of the original and of what ships is in the report."""

import pytest
import torch
from tiny_text import SIZES, SPELLED, write_sst2, write_tokenizer
from torch import nn

import lianzhi as lz
from lianzhi import measure
from lianzhi.pipeline import memory

MEASURED = memory.with_memory  # before the fixture that leaves it out of all other tests


class Net(nn.Module):
    """The first layer has 4 MB of weights."""

    def __init__(self):
        super().__init__()
        self.wide, self.last = nn.Linear(192, 5200), nn.Linear(5200, 4)

    def forward(self, x):
        return self.last(torch.relu(self.wide(x.flatten(1))))


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    monkeypatch.setattr(memory, "with_memory", MEASURED)


def compress(task, output, **options):
    steps = [lz.Prune(ratio=0.8, scope="layer")]
    brief = lz.Measure(batches=(1,), repeats=2, threads=1)
    return lz.compress(Net(), task, steps, output=output, measure=brief, progress=False, **options)


def test_files_are_measured_in_the_runtime_that_ships(task, tmp_path):
    result = compress(task, tmp_path / "run", target="onnxruntime")
    first, last = result.report.rows
    assert first["memory_mb"] > 4
    assert last["memory_mb"] < first["memory_mb"] - 2
    assert "Memory" in result.table()
    assert "Memory" in (tmp_path / "run" / "report.html").read_text("utf-8")
    again = lz.compress(
        Net(), task, [lz.Prune(ratio=0.8, scope="layer")], target="onnxruntime", output=tmp_path / "run",
        measure=lz.Measure(batches=(1,), repeats=2, threads=1), progress=False, resume=True,
    )  # fmt: skip
    assert [row["memory_mb"] for row in again.report.rows] == [first["memory_mb"], last["memory_mb"]]


def test_without_a_file_the_tensors_of_both_modules_are_counted(task, tmp_path):
    result = compress(task, tmp_path / "run", target="pytorch")
    first, last = result.report.rows
    one = task.example_inputs
    assert first["memory_mb"] == measure.memory(Net(), one) / 1e6
    assert last["memory_mb"] == measure.memory(result.model, one) / 1e6 < first["memory_mb"] / 4


def test_what_cannot_be_measured_is_said(task, tmp_path, monkeypatch):
    def killed(*given, **options):
        raise lz.TargetError("killed")

    monkeypatch.setattr(measure, "memory", killed)
    result = compress(task, tmp_path / "run", target="onnxruntime")
    assert [row["memory_mb"] for row in result.report.rows] == [None, None]
    assert "peak memory is not known: killed" in result.report.notes


@pytest.mark.parametrize("target", ["pytorch", "onnxruntime"])
def test_a_model_that_has_come_to_read_other_tokens_gets_those(tmp_path, target):
    """The BiLSTM has fewer words than the teacher has tokens, and takes no segments."""
    write_sst2(tmp_path / "SST-2", train=48, dev=16)
    words = [*SPELLED[:4], *(f"unused{number}" for number in range(900)), *SPELLED[4:]]
    write_tokenizer(tmp_path / "tokenizer", words)
    options = {"max_length": 32, "validation": 8, "calibration": 8, "tokenizer": str(tmp_path / "tokenizer")}
    task = lz.task("sst2", data=str(tmp_path / "SST-2"), segments=True, **options)
    config = {**SIZES, "vocab_size": len(words)}
    teacher = lz.model("huggingface", config=config, num_classes=2)
    result = lz.compress(
        teacher,
        task,
        [
            lz.ReduceVocabulary(),
            lz.Distill(method="bilstm", epochs=1, options={"width": 8, "hidden": 8, "linear": 8}),
        ],
        output=tmp_path / "out",
        target=target,
        measure=lz.Measure(batches=(1,), repeats=1, threads=1),
        progress=False,
    )
    assert all(row["memory_mb"] > 0 for row in (result.report.rows[0], result.report.rows[-1]))
    assert not [note for note in result.report.notes if "memory is not known" in note]
