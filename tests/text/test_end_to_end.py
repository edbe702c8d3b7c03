"""From a recipe to a deployed text classifier: trained, killed and resumed, distilled, evaluated, predicted."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

import lianzhi as lz
from lianzhi import cli, files, jobs, train

RECIPES = Path(__file__).parents[2] / "recipes"
TRAIN = {"optimizer": "adamw", "lr": 3e-3, "batch_size": 16, "schedule": "polynomial", "warmup": 0.1}
TRAIN |= {"weight_decay": 0.01, "decay_all": False}
STEP = {"train": {**TRAIN, "epochs": 4}}


def write_recipe(file: Path, model, glue: Path, steps, target: str = "onnxruntime") -> Path:
    task = {"name": "sst2", "data": str(glue), "max_length": 32}
    measure = {"batches": [1], "repeats": 2, "threads": 1}
    recipe = {"model": model, "task": task, "target": target, "measure": measure, "steps": steps}
    file.write_text(yaml.safe_dump(recipe, sort_keys=False))  # of patterns the first that fits counts
    return file


@pytest.fixture(scope="module")
def teacher(glue, bert, tmp_path_factory) -> Path:
    """A trained artifact, made by the command."""
    folder = tmp_path_factory.mktemp("teacher")
    model = {"name": "huggingface", "path": str(bert), "num_classes": 2}
    recipe = write_recipe(folder / "r.yaml", model, glue, [STEP])
    assert cli.main(["train", str(recipe), "-o", str(folder / "out"), "--quiet"]) == 0
    return folder / "out"


def test_it_learns_and_says_what_it_did(teacher):
    report = json.loads((teacher / "report.json").read_text())
    first, last = report["rows"]
    assert (first["metric"], first["split"], first["samples"]) == ("accuracy", "test", 60)
    assert last["value"] > 0.9 > first["value"]
    assert any("newly initialised" in note for note in report["notes"])
    assert (teacher / "labels.txt").read_text() == "negative\npositive\n"
    assert (teacher / "tokenizer" / "tokenizer.json").is_file()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "pytorch"])
def test_evaluate_gives_the_reported_accuracy(teacher, runtime, capsys):
    if runtime == "openvino":
        pytest.importorskip(runtime)
    arguments = ["evaluate", str(teacher), "--runtime", runtime, "--precision", "f32", "--json"]
    assert cli.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    report = json.loads((teacher / "report.json").read_text())
    assert (found["value"], found["samples"]) == (report["rows"][-1]["value"], 60)


def test_predict_and_measure(teacher, capsys):
    assert cli.main(["predict", str(teacher), "a very good film", "a dull plot", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["classes"][0]["name"], second["classes"][0]["name"]) == ("positive", "negative")
    assert sum(line["probability"] for line in first["classes"]) == pytest.approx(1)
    assert cli.main(["measure", str(teacher), "--repeats", "2", "--threads", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {entry["runtime"] for entry in found["latencies"]} >= {"pytorch", "onnxruntime"}
    assert found["parameters"] == sum(value.numel() for value in lz.load(teacher).parameters())


def test_kd_into_fewer_layers(teacher, glue, bert, tmp_path):
    model = {"name": "huggingface", "path": str(bert), "num_classes": 2, "config": {"num_hidden_layers": 1}}
    step = {"distill": {**TRAIN, "method": "kd", "teacher": str(teacher), "temperature": 2.0, "epochs": 4}}
    recipe = write_recipe(tmp_path / "r.yaml", model, glue, [step])
    before = hashlib.sha256((teacher / "model.safetensors").read_bytes()).hexdigest()
    assert cli.main(["compress", str(recipe), "-o", str(tmp_path / "out"), "--quiet"]) == 0
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["rows"]
    assert rows[-1]["value"] > 0.85 > rows[0]["value"]
    assert set(rows[-1]["details"]["history"]["epochs"][0]["terms"]) >= {"soft", "hard"}
    assert hashlib.sha256((teacher / "model.safetensors").read_bytes()).hexdigest() == before
    assert len(lz.load(tmp_path / "out").bert.encoder.layer) == 1


def test_an_artifact_goes_on_with_its_own_tokenizer(teacher, glue, tmp_path):
    recipe = write_recipe(tmp_path / "r.yaml", {"artifact": str(teacher)}, glue, [STEP])
    job = jobs.prepare(str(recipe))
    found, given = job.task.preprocess.tokenizer, (teacher / "tokenizer" / "tokenizer.json").read_text()
    assert found.get_vocab() == dict(json.loads(given)["model"]["vocab"].items())
    assert job.task.preprocess.inputs == ("input_ids", "attention_mask", "token_type_ids")


def test_int8_of_a_trained_classifier(teacher, glue, tmp_path):
    recipe = write_recipe(
        tmp_path / "r.yaml", {"artifact": str(teacher)}, glue, [{"quantize": {"calibration": 64}}]
    )
    recipe.write_text(recipe.read_text() + "precision: int8\n")
    job = jobs.prepare(str(recipe))
    result = jobs.run(job, output=str(tmp_path / "out"), resume=False, force=False, progress=False)
    before, after = result.report.rows
    assert abs(before["value"] - after["value"]) < 0.05
    assert after["precision"] == "int8"
    assert after["bytes"] < before["bytes"]
    loaded = lz.load(tmp_path / "out")
    texts = next(iter(job.task.batches("validation", 7))).inputs
    assert loaded(**texts)["logits"].shape == (7, 2)
    assert cli.main(["predict", str(tmp_path / "out"), "a very good film", "--quiet"]) == 0


@pytest.mark.slow
def test_the_ready_recipe_of_4_bits(teacher, glue, tmp_path):
    ready = files.parse_yaml((RECIPES / "sst2-int4.yaml").read_text(), "sst2-int4.yaml")
    recipe = write_recipe(
        tmp_path / "r.yaml", {"artifact": str(teacher)}, glue, ready["steps"], "onnxruntime"
    )
    recipe.write_text(f"{recipe.read_text()}\nprecision: {ready['precision']}\n")
    assert cli.main(["compress", str(recipe), "-o", str(tmp_path / "out"), "--quiet"]) == 0
    before, after = json.loads((tmp_path / "out" / "report.json").read_text())["rows"]
    assert after["precision"] == "int4-weights"
    assert after["bytes"] < before["bytes"]
    assert "int4" in after["details"]["quantization"]["onnxruntime"]["weights"]
    assert cli.main(["predict", str(tmp_path / "out"), "a very good film", "--quiet"]) == 0
    assert cli.main(["evaluate", str(tmp_path / "out"), "--runtime", "openvino", "--quiet"]) == 0


@pytest.mark.slow
def test_killed_and_resumed_it_ends_with_the_same_weights(glue, bert, tmp_path):
    step = {"train": {**TRAIN, "epochs": 3, "save_every": 0.01}}
    recipe = write_recipe(
        tmp_path / "r.yaml", {"name": "huggingface", "path": str(bert)}, glue, [step], "pytorch"
    )
    command = [sys.executable, "-m", "lianzhi", "train", str(recipe), "--quiet", "--resume", "-o"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(name):
        return subprocess.Popen([*command, str(tmp_path / name)], env=environment, stdout=subprocess.DEVNULL)

    assert start("whole").wait() == 0
    process = start("killed")
    checkpoint = tmp_path / "killed" / ".work" / "step-0" / "train" / "last.safetensors"
    end = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    assert start("killed").wait() == 0
    whole, killed = (
        hashlib.sha256((tmp_path / name / "model.safetensors").read_bytes()).hexdigest()
        for name in ("whole", "killed")
    )
    assert whole == killed


def test_a_user_s_own_loader_of_tokens_takes_the_default_loss(bert):
    """The default loss and metric read the logits of what a Hugging Face model returns."""
    from tiny_text import tokens

    batches = [{**tokens(4, 5, seed), "labels": torch.tensor([0, 1, 1, 0])} for seed in range(2)]
    task = lz.Task(train=batches, validation=batches, labels=["a", "b"])
    model = lz.model("huggingface", path=str(bert), num_classes=2)
    history = train.fit(model, task, lz.Train(epochs=1, label_smoothing=0.1), progress=False)
    assert len(history.epochs) == 1
    assert 0 <= lz.measure.evaluate(model, task, split="validation").value <= 1


def test_the_ready_recipe_of_a_twelfth(teacher, glue, tmp_path):
    ready = files.parse_yaml((RECIPES / "sst2-deep-compression.yaml").read_text(), "ready")
    share = ready["steps"][0]["share_weights"]
    share["epochs"] = share["moving"]["epochs"] = 0.2
    recipe = write_recipe(tmp_path / "r.yaml", {"artifact": str(teacher)}, glue, ready["steps"], "pytorch")
    assert cli.main(["compress", str(recipe), "-o", str(tmp_path / "out"), "--quiet"]) == 0
    _, shared, packed = json.loads((tmp_path / "out" / "report.json").read_text())["rows"]
    rates = shared["details"]["rate"]
    assert [rate for name, rate in rates.items() if "word_embeddings" in name] == [1.84]
    assert set(rates.values()) == {1.84, 3.44}
    assert packed["size_file"] == "model.lzc"
    assert 6 * packed["bytes"] < shared["bytes"]
    assert cli.main(["predict", str(tmp_path / "out" / "model.lzc"), "a very good film", "--quiet"]) == 0
