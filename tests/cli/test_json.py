"""``--json``: stdout is one JSON document and nothing else, of every command, and when it fails too."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from lianzhi.cli import common, complete, main

RECIPE = """
model: {name: lenet5_classic, num_classes: 3, in_channels: 3, image_size: 32}
task: {name: synthetic, samples: 64, classes: 3, shape: [3, 32, 32]}
target: onnxruntime
measure: {batches: [1], repeats: 1, threads: 1}
steps:
  - train: {epochs: 1, batch_size: 32, lr: 0.05}
"""
COMMANDS = ["compress", "train", "evaluate", "measure", "inspect", "predict", "list"]


def document(text: str) -> Any:
    def refuse(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp("json")
    (folder / "train.yaml").write_text(RECIPE)
    (folder / "prune.yaml").write_text(RECIPE + "  - prune: {ratio: 0.25}\n")
    Image.new("RGB", (32, 32), (200, 10, 10)).save(folder / "red.png")
    assert main(["train", str(folder / "train.yaml"), "-o", str(folder / "done"), "--quiet"]) == 0
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["compress", "prune.yaml", "-o", "pruned"],
        ["compress", "prune.yaml", "-o", "pruned", "--resume"],
        ["compress", "prune.yaml", "--dry-run"],
        ["train", "train.yaml", "-o", "trained"],
        ["train", "train.yaml", "--dry-run"],
        ["evaluate", "done"],
        ["measure", "done", "--repeats", "1"],
        ["inspect", "done"],
        ["inspect", "done", "--sensitivity", "--ratios", "0.5"],
        ["inspect", "prune.yaml"],
        ["predict", "done", "red.png", "red.png"],
        *(["list", kind] for kind in complete.LISTED),
    ],
)
def test_a_result(folder, monkeypatch, capfd, arguments):
    monkeypatch.chdir(folder)
    capfd.readouterr()
    assert main([*arguments, "--json"]) == 0
    assert isinstance(document(capfd.readouterr().out), (dict, list))


@pytest.mark.parametrize(
    "wrong", [["nowhere"], [], ["nowhere", "--nonsense"], ["nowhere", "--quiet", "--verbose"]]
)
@pytest.mark.parametrize("command", COMMANDS)
def test_an_error(folder, monkeypatch, capfd, command, wrong):
    monkeypatch.chdir(folder)
    more = ["red.png"] if command == "predict" and "nowhere" in wrong else []
    capfd.readouterr()
    assert main([command, *wrong, *more, "--json"]) == 2
    printed = capfd.readouterr()
    said = document(printed.out)
    assert said.keys() == {"error", "exit_code"}
    assert said["exit_code"] == 2
    assert said["error"] in printed.err


def test_a_loss_that_is_no_number(folder, monkeypatch, capfd):
    """Exit code 2, the step is named, and the last good checkpoint stays."""
    monkeypatch.chdir(folder)
    arguments = [
        "--set",
        "steps.0.lr=1e30",
        "--set",
        "steps.0.epochs=3",
        "--set",
        "steps.0.schedule=constant",
    ]
    assert main(["train", "train.yaml", "-o", "nan", *arguments, "--json"]) == 2
    assert "the loss is" in document(capfd.readouterr().out)["error"]
    assert (folder / "nan" / ".work").is_dir()
    assert not (folder / "nan" / "report.json").exists()


def test_numbers_that_json_has_not(capsys):
    common.say_json({"a": float("nan"), "b": [float("inf"), (1.5,)]})
    assert document(capsys.readouterr().out) == {"a": None, "b": [None, [1.5]]}


@pytest.mark.parametrize(
    ("encoding", "text"), [("ascii", "猫"), ("utf-8", os.fsdecode(b"\xff")), ("utf-8", "猫")]
)
def test_text_that_the_terminal_has_not(monkeypatch, encoding, text):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    common.say_json({"name": text})
    sys.stdout.flush()
    assert document(written.getvalue().decode(encoding)) == {"name": text}


def test_of_several_processes_the_first_one_prints(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    common.say_json([1])
    common.say("x")
    common.remark("x")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("RANK", "0")
    common.say_json([1])
    assert capsys.readouterr().out == "[\n  1\n]\n"
