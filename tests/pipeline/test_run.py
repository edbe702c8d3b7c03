"""The pipeline, end to end, on data that the test makes."""

import json

import pytest
import torch
from small_net import FAST, MEASURE, Net
from torch import nn

import lianzhi as lz
from lianzhi.errors import DataError, GraphError, LianzhiError, RecipeError


def test_all_steps(task, tmp_path):
    model = Net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = lz.compress(
        model,
        task,
        [
            lz.Train(**FAST),
            lz.Sparsify(**FAST),
            lz.Prune(criterion="bn_scale", ratio=0.5),
            lz.Distill(**FAST),
            lz.Quantize(calibration=32),
        ],
        output=tmp_path / "out",
        measure=MEASURE,
        progress=False,
    )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    rows = result.report.rows
    assert [row["step"] for row in rows] == ["original", "train", "sparsify", "prune", "distill", "quantize"]
    assert rows[0]["runtime"] == "pytorch"
    assert rows[3]["parameters"] < rows[2]["parameters"]
    assert rows[3]["macs"] < rows[2]["macs"]
    assert rows[3]["details"]["verified"] < 1e-5
    assert {"onnxruntime"} <= {entry["runtime"] for entry in rows[-1]["latencies"]}
    names = {item.name for item in result.path.iterdir()}
    assert names >= {
        "model.safetensors", "architecture.json", "model.onnx", "preprocess.json", "recipe.yaml",
        "report.json", "report.html", "report.md", "predict.py",
    }  # fmt: skip
    assert ".work" not in names
    inputs = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(lz.load(result.path)(inputs), result.model.eval()(inputs))
    assert "prune" in result.table()
    assert json.loads((result.path / "report.json").read_text())["rows"][0]["step"] == "original"


@pytest.mark.slow
def test_steps_repeat_in_any_order(task, tmp_path):
    result = lz.compress(
        Net(),
        task,
        [lz.Quantize(calibration=32), lz.Prune(ratio=0.25), lz.Train(**FAST), lz.Prune(ratio=0.25)],
        output=tmp_path / "out",
        measure=MEASURE,
        progress=False,
    )
    rows = result.report.rows
    assert [row["step"] for row in rows[1:]] == ["quantize", "prune", "train", "prune"]
    assert rows[4]["parameters"] < rows[2]["parameters"] < rows[0]["parameters"]
    assert any("quantized again" in note for note in result.report.notes)


def test_a_fixed_target_is_kept(task, tmp_path):
    result = lz.compress(
        Net(), task, [lz.Quantize(calibration=32, techniques=("bias_correction",))], target="onnxruntime", precision="int8",
        output=tmp_path / "out", measure=MEASURE, progress=False,
    )  # fmt: skip
    assert result.report.decision["runtime"] == "onnxruntime"
    assert result.report.decision["precision"] == "int8"


def test_finished_run_is_reopened(task, tmp_path):
    steps, model = [lz.Prune(ratio=0.25)], Net()
    first = lz.compress(model, task, steps, output=tmp_path / "o", measure=MEASURE, progress=False)
    again = lz.compress(
        model, task, steps, output=tmp_path / "o", measure=MEASURE, progress=False, resume=True
    )
    assert again.report.rows == first.report.rows


def test_finished_run_of_another_recipe_is_not_reopened(task, tmp_path):
    model, out = Net(), tmp_path / "o"
    lz.compress(model, task, [lz.Prune(ratio=0.25)], output=out, measure=MEASURE, progress=False)
    with pytest.raises(RecipeError, match=r"recipe\.steps\.0\.prune\.ratio \(0\.25 before, 0\.5 now\)"):
        lz.compress(
            model, task, [lz.Prune(ratio=0.5)], output=out, measure=MEASURE, progress=False, resume=True
        )


def test_nothing_stays_of_an_older_artifact(task, tmp_path):
    """Its ONNX file would be taken for that of the new weights."""
    model, out = Net(), tmp_path / "o"
    options = {"output": out, "measure": MEASURE, "progress": False}
    lz.compress(model, task, [lz.Prune(ratio=0.25)], **options)
    assert (out / "model.onnx").exists()
    (out / "mine.txt").write_text("precious")
    lz.compress(model, task, [lz.Prune(ratio=0.5)], target="pytorch", force=True, **options)
    names = {item.name for item in out.iterdir()}
    assert not names & {"model.onnx", "predict.py"}
    assert (out / "mine.txt").read_text() == "precious"


def test_a_home_folder_is_found(task, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    lz.compress(Net(), task, [lz.Prune(ratio=0.25)], output="~/o", measure=MEASURE, progress=False)
    assert (tmp_path / "o" / "report.json").is_file()
    assert not (tmp_path / "~").exists()


def test_wrong_before_anything_is_written(task, tmp_path):
    out = tmp_path / "out"

    def fails(error, match, model=None, steps=None, **options):
        with pytest.raises(error, match=match):
            lz.compress(
                model or Net(), task, steps or [lz.Prune(ratio=0.5)], output=out, progress=False, **options
            )
        assert not out.exists()

    fails(LianzhiError, "did you mean 'onnxruntime'", target="onnxruntim")
    fails(RecipeError, "no step quantizes", precision="int8")
    fails(RecipeError, "precision .int9. is not known; did you mean .int8.", precision="int9")
    fails(DataError, "2 outputs.*4 classes", model=Net(classes=2))
    fails(RecipeError, "did you mean 'bn_scale'", steps=[lz.Prune(ratio=0.5, criterion="bn_scal")])
    fails(RecipeError, "unknown method 'kdd'", steps=[lz.Distill(method="kdd")])

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3 * 8 * 8, 4)

        def forward(self, x):
            if x.sum() > 0:
                x = -x
            return self.fc(x.flatten(1))

    fails(GraphError, "if x.sum", model=Branches())
