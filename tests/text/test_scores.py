"""A score, and pairs of texts, from a recipe to the deployed model: STS-B at tiny size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from scipy import stats
from tiny_text import write_stsb

import lianzhi as lz
from lianzhi import cli
from lianzhi.errors import ArtifactError, DataError, RecipeError
from lianzhi.tasks import TextPreprocess
from lianzhi.tasks.texts import texts_of

TRAIN = {"optimizer": "adamw", "lr": 3e-3, "batch_size": 16, "warmup": 0.1, "epochs": 5}
PAIR = ["a very good film", "a great story"]


@pytest.fixture(scope="module")
def stsb(tmp_path_factory) -> Path:
    return write_stsb(tmp_path_factory.mktemp("glue") / "STS-B").parent


def recipe(file: Path, model, data: Path, steps, **more) -> str:
    task = {"name": "stsb", "data": str(data), "max_length": 40}
    measure = {"batches": [1], "repeats": 2, "threads": 1}
    whole = {
        "model": model,
        "task": task,
        "target": "onnxruntime",
        "measure": measure,
        "steps": steps,
        **more,
    }
    file.write_text(yaml.safe_dump(whole))
    return str(file)


@pytest.fixture(scope="module")
def teacher(stsb, bert, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    model = {"name": "huggingface", "path": str(bert), "num_classes": 1}
    file = recipe(folder / "r.yaml", model, stsb, [{"train": TRAIN}])
    assert cli.main(["train", file, "-o", str(folder / "out"), "--quiet"]) == 0
    return folder / "out"


def test_it_learns_and_reports_correlations(teacher, stsb):
    report = json.loads((teacher / "report.json").read_text())
    first, last = report["rows"]
    assert (last["metric"], last["split"], last["samples"]) == ("pearson", "test", 40)
    assert last["value"] > 0.5 > abs(first["value"])
    assert report["task"]["num_classes"] == 1
    assert not (teacher / "labels.txt").exists()
    task = lz.task("stsb", data=stsb, tokenizer=str(teacher), max_length=40)
    batch = next(iter(task.batches("test", 40)))
    outputs = lz.load(teacher)(**batch.inputs)["logits"][:, 0]
    assert last["value"] == pytest.approx(stats.pearsonr(outputs.detach(), batch.labels)[0], abs=1e-4)
    assert last["metrics"]["spearman"] == pytest.approx(
        stats.spearmanr(outputs.detach(), batch.labels)[0], abs=1e-3
    )
    for page in ("report.md", "report.html"):
        assert f"{last['value']:.3f}" in (teacher / page).read_text()


def test_evaluate_and_predict_give_scores(teacher, capsys):
    assert cli.main(["evaluate", str(teacher), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    report = json.loads((teacher / "report.json").read_text())
    assert found["value"] == pytest.approx(report["rows"][-1]["value"], abs=1e-6)
    assert cli.main(["predict", str(teacher), *PAIR, PAIR[0], "a dull plot", "--json"]) == 0
    alike, other = json.loads(capsys.readouterr().out)
    assert alike.keys() == {"input", "second", "score"}
    assert [alike["input"], alike["second"]] == PAIR
    inputs = TextPreprocess.load(teacher)(*PAIR)
    with torch.inference_mode():
        wanted = lz.load(teacher)(**{key: torch.from_numpy(value) for key, value in inputs.items()})
    assert alike["score"] == pytest.approx(wanted["logits"].item(), abs=1e-4)
    assert alike["score"] > other["score"]
    assert cli.main(["predict", str(teacher), *PAIR]) == 0
    assert capsys.readouterr().out.splitlines() == [*PAIR, f"  {alike['score']:.4f}"]


@pytest.mark.parametrize("exported", [False, True])
def test_predict_py_prints_the_score(teacher, capsys, tmp_path, exported):
    folder = teacher
    if exported:
        folder = tmp_path / "exported"
        assert cli.main(["export", str(teacher), "--target", "onnxruntime", "-o", str(folder)]) == 0
        capsys.readouterr()
    script = str(folder / "predict.py")
    done = subprocess.run([sys.executable, script, *PAIR], capture_output=True, text=True, check=True)
    assert cli.main(["predict", str(teacher), *PAIR, "--json"]) == 0
    score = json.loads(capsys.readouterr().out)[0]["score"]
    *texts, shown = done.stdout.removesuffix("\n").split("\t")
    assert texts == PAIR
    assert float(shown) == pytest.approx(score, abs=1e-4)
    done = subprocess.run([sys.executable, script, PAIR[0]], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "takes pairs of sentences" in done.stderr
    assert len((teacher / "predict.py").read_text().splitlines()) < 45


def test_a_pair_needs_a_second_sentence(teacher, capsys):
    assert cli.main(["predict", str(teacher), PAIR[0]]) == 2
    assert "takes pairs of sentences, and 1 were given" in capsys.readouterr().err


@pytest.mark.slow
def test_distilled_and_quantized(teacher, stsb, bert, tmp_path):
    """kd's soft loss of one output is the squared error; int8 keeps the correlation within max_drop."""
    model = {"name": "huggingface", "path": str(bert), "num_classes": 1, "config": {"num_hidden_layers": 1}}
    steps = [
        {"distill": {**TRAIN, "method": "kd", "teacher": str(teacher), "alpha": 0.5, "epochs": 5}},
        {"quantize": {"calibration": 16, "max_drop": 0.1}},
    ]
    file = recipe(tmp_path / "r.yaml", model, stsb, steps, precision="int8")
    assert cli.main(["compress", file, "-o", str(tmp_path / "out"), "--quiet"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    first, distilled, last = report["rows"]
    assert distilled["value"] > 0.4 > abs(first["value"])
    assert (last["metric"], last["precision"]) == ("pearson", "int8")
    assert abs(last["value"] - distilled["value"]) < 0.1
    assert cli.main(["predict", str(tmp_path / "out"), *PAIR, "--quiet"]) == 0


def test_a_model_of_two_outputs_is_refused_before_training(stsb, bert, tmp_path, capsys):
    model = {"name": "huggingface", "path": str(bert), "num_classes": 2}
    file = recipe(tmp_path / "r.yaml", model, stsb, [{"train": TRAIN}])
    assert cli.main(["train", file, "-o", str(tmp_path / "out"), "--quiet"]) == 2
    assert "asks for one score a sample; make the model with num_classes=1" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not (tmp_path / "out" / "report.json").exists()


def test_label_smoothing_of_a_score_is_refused(stsb, bert):
    task = lz.task("stsb", data=stsb, tokenizer=str(bert), max_length=40)
    model = lz.model("huggingface", path=str(bert), num_classes=1)
    with pytest.raises(RecipeError, match=r"label_smoothing 0.1: task 'stsb' is a score"):
        lz.train.fit(model, task, lz.Train(epochs=1, label_smoothing=0.1), progress=False)


def test_a_preprocessing_without_pairs_is_read_and_a_wrong_one_refused(teacher, tmp_path):
    import shutil

    folder = shutil.copytree(teacher, tmp_path / "copy")
    values = json.loads((folder / "preprocess.json").read_text())
    assert values.pop("pairs") is True
    (folder / "preprocess.json").write_text(json.dumps(values))
    assert TextPreprocess.load(folder).pairs is False
    (folder / "preprocess.json").write_text(json.dumps({**values, "pairs": 2}))
    with pytest.raises(ArtifactError, match="pairs must be true or false"):
        TextPreprocess.load(folder)


def test_scores_are_taken_over_by_the_texts_of_a_task(stsb, bert):
    task = lz.task("stsb", data=stsb, tokenizer=str(bert), max_length=40)
    found = texts_of(task, "train")
    assert found.labels.dtype.kind == "f"
    with pytest.raises(DataError, match="score nan is not a finite number"):
        lz.tasks.texts.with_train(task, ["a"], ["b"], [float("nan")])
