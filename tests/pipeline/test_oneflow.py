"""A recipe for OneFlow: measured by PyTorch meanwhile, and written at the end; what it cannot be is refused at once."""

import json

import numpy as np
import pytest
import torch
from oneflow_as_torch import run_script, same_lines
from PIL import Image
from torch import nn

import lianzhi as lz
from lianzhi import cli, jobs
from lianzhi.deploy import oneflow
from lianzhi.errors import RecipeError, TargetError

MEASURE = lz.Measure(batches=(1,), repeats=2)


@pytest.fixture(scope="module")
def task():
    return lz.task("synthetic", samples=96, classes=3, shape=(3, 8, 8))


def small(inner=None):
    return nn.Sequential(nn.Conv2d(3, 8, 3), inner or nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3))


def compress(model, task, steps, output, **options):
    options = {"target": "oneflow", "measure": MEASURE, "progress": False, **options}
    return lz.compress(model, task, steps, output=output, **options)


@pytest.fixture(scope="module")
def out(task, tmp_path_factory):
    steps = [lz.Train(epochs=1, batch_size=32), lz.Prune(ratio=0.5)]
    return compress(small(), task, steps, tmp_path_factory.mktemp("oneflow") / "out").path


def test_the_artifact_holds_what_oneflow_runs(out):
    assert {"model.py", "weights", "run_in_oneflow.py"} <= {item.name for item in out.iterdir()}
    assert not {"model.onnx", "predict.py"} & {item.name for item in out.iterdir()}
    found = oneflow.read(out / "weights")
    assert all(torch.equal(found[name], value) for name, value in lz.load(out).state_dict().items())
    assert found["0.weight"].shape[0] == 4


def test_the_report_says_what_was_measured(out):
    report = json.loads((out / "report.json").read_text())
    decision = report["decision"]
    assert (decision["runtime"], decision["precision"]) == ("oneflow", "f32")
    assert (
        "nothing is said of its speed; accuracy and times of this row are those of the same weights in pytorch"
        in (decision["reason"])
    )
    assert {row["runtime"] for row in report["rows"]} == {"pytorch"}
    assert report["rows"][-1]["bytes"] == (out / "model.safetensors").stat().st_size
    assert report["recipe"]["target"] == "oneflow"


def test_predict_and_the_script_say_the_same(out, tmp_path):
    file = tmp_path / "one.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8)).save(file)
    same_lines(run_script(out, file), jobs.predict(out, [str(file)]))


def test_it_goes_on_from_where_it_was(task, tmp_path):
    steps = [lz.Prune(ratio=0.5)]
    torch.manual_seed(0)
    model = small()
    one = compress(model, task, steps, tmp_path / "out")
    again = compress(model, task, steps, tmp_path / "out", resume=True)
    assert one.report.decision == again.report.decision


def test_int8_is_refused_before_anything_is_written(task, tmp_path):
    with pytest.raises(
        RecipeError, match=r"steps.0 \(quantize\): what is written for oneflow computes in float32"
    ):
        compress(small(), task, [lz.Quantize()], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_without_source_is_refused_before_anything_is_written(task, tmp_path):
    class Median(nn.Module):
        def forward(self, x):
            return x - x.median(dim=3, keepdim=True).values

    with pytest.raises(TargetError, match=r"no counterpart for aten\.median\.dim"):
        compress(small(Median()), task, [lz.Train(epochs=1)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_latency_budget_for_it(task, tmp_path):
    with pytest.raises(TargetError, match="no latency can be measured"):
        compress(small(), task, [lz.Prune(latency=0.5)], tmp_path / "out")


def test_a_run_over_an_older_one_leaves_no_files_of_oneflow(task, tmp_path):
    steps = [lz.Prune(ratio=0.5)]
    compress(small(), task, steps, tmp_path / "out")
    compress(small(), task, steps, tmp_path / "out", target="pytorch", force=True)
    assert not {"model.py", "weights", "run_in_oneflow.py"} & {
        item.name for item in (tmp_path / "out").iterdir()
    }


def test_evaluate_reads_it(out, capsys):
    assert cli.main(["measure", str(out), "--repeats", "2", "--quiet"]) == 0
    capsys.readouterr()
    assert cli.main(["measure", str(out), "--runtime", "oneflow"]) == 2
    assert "does not run them on this machine" in capsys.readouterr().err
