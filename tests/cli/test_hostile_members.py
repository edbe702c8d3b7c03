"""Members of an artifact, and ONNX files, made to harm: refused by every command, with nothing read or run."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lianzhi.cli import main

RECIPE = """
model: {name: lenet5_classic, num_classes: 3, in_channels: 3, image_size: 32}
task: {name: synthetic, samples: 64, classes: 3, shape: [3, 32, 32]}
target: onnxruntime
measure: {batches: [1], repeats: 1, threads: 1}
steps:
  - prune: {ratio: 0.25}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "tiny.yaml").write_text(RECIPE)
    assert main(["compress", str(folder / "tiny.yaml"), "-o", str(folder / "out"), "--quiet"]) == 0
    return folder / "out"


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (32, 32), (200, 10, 10)).save(tmp_path / "red.png")
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def refused(capsys: Any, message: str, *arguments: str) -> None:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 2
    said = json.loads(capsys.readouterr().out)["error"]
    assert message in said
    assert "root:" not in said
    assert len(said) < 900


def commands(folder: Path) -> list[list[str]]:
    return [
        ["predict", str(folder), str(folder.parent / "red.png")],
        ["evaluate", str(folder)],
        ["measure", str(folder), "--repeats", "1", "--runtime", "onnxruntime"],
        ["inspect", str(folder)],
    ]


def test_the_copy_is_taken_by_every_command(copy, capsys):
    """So that what is refused below is refused for its damage."""
    for command in commands(copy):
        capsys.readouterr()
        assert main([*command, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    "member", ["labels.txt", "report.json", "recipe.yaml", "preprocess.json", "model.onnx"]
)
def test_a_link_in_place_of_a_member(copy, capsys, member):
    (copy / member).unlink(missing_ok=True)
    (copy / member).symlink_to("/etc/passwd")
    for command in commands(copy):
        refused(capsys, "is a link", *command)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("member", ["labels.txt", "architecture.json", "model.onnx", "more"])
def test_a_pipe_or_socket_in_place_of_a_member(copy, capsys, monkeypatch, member, kind):
    (copy / member).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(copy / member)
    else:
        monkeypatch.chdir(copy)  # the name of a socket is short
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(member)
    for command in commands(copy):
        refused(
            capsys, "architecture.json" if member == "architecture.json" else "not a plain file", *command
        )


@pytest.mark.timeout(60)
def test_a_pipe_in_place_of_a_model(tmp_path, capsys):
    os.mkfifo(tmp_path / "model.onnx")
    for command in ("measure", "evaluate"):
        refused(capsys, "is a pipe or a device", command, str(tmp_path / "model.onnx"))
        refused(capsys, "is a pipe or a device", command, "/dev/zero")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb\nc\nd\n", "4 names for 3 outputs"),
        (b"a\n\x1b]0;owned\x07\nc\n", "line 2 holds control characters"),
        ("a\nb\n\u202ec\n".encode(), "line 3 holds control characters"),
        (b"\xff\xfe", "not UTF-8"),
        (b"x" * (9 << 20), "at most"),
    ],
)
def test_labels(copy, capsys, content, message):
    (copy / "labels.txt").write_bytes(content)
    refused(capsys, message, *commands(copy)[0])


def test_labels_that_name_only_some_outputs(copy, capsys):
    (copy / "labels.txt").write_text("猫\n")
    capsys.readouterr()
    assert main([*commands(copy)[0], "--json"]) == 0
    classes = json.loads(capsys.readouterr().out)[0]["classes"]
    assert {item["index"]: item["name"] for item in classes} == {0: "猫", 1: "1", 2: "2"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": [10**9, 10**9]}, "pixels"),
        ({"size": [0, 32]}, "pixels"),
        ({"size": [-32, 32]}, "pixels"),
        ({"resize": 10**9}, "pixels"),
        ({"crop": [1 << 40, 1 << 40]}, "pixels"),
        ({"size": ["x", 1]}, "preprocessing"),
        ({"size": 3}, "preprocessing"),
        ({"channels": 2, "mean": [0, 0], "std": [1, 1]}, "channels"),
        ({"std": [0, 0, 0]}, "above 0"),
        ({"code": "x"}, "unknown code"),
        ({"kind": "text"}, "missing"),
    ],
)
def test_preprocessing(copy, capsys, change, message):
    file = copy / "preprocess.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    refused(capsys, message, *commands(copy)[0])


@pytest.mark.parametrize("text", ['{"size": [NaN, 32]}', '{"size": [1e999, 32]}', "[]", "{", "[" * 10**5])
def test_preprocessing_that_is_no_table(copy, capsys, text):
    (copy / "preprocess.json").write_text(text)
    refused(capsys, "", *commands(copy)[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: {name: synthetic, samples: 64, 1: 2}", "damaged"),
        ("task: {name: __import__}", "unknown task"),
        ("task: {name: synthetic, code: x}", "code"),
        ("task: {name: synthetic, samples: .nan}", "samples"),
        ("task: !!python/object/apply:os.system [true]", "damaged"),
        ("task: {name: synthetic, samples: 99999999999999, classes: 3, shape: [3, 32, 32]}", "memory"),
        ("task: {name: cifar10, data: /etc/passwd}", "/etc/passwd"),
    ],
)
def test_recipe(copy, capsys, text, message):
    (copy / "recipe.yaml").write_text(text)
    refused(capsys, message, *commands(copy)[1])


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        ({"runtime": "os.system", "precision": "f32"}, "unknown target"),
        ({"runtime": "onnxruntime", "precision": "../f32"}, "does not run"),
    ],
)
def test_report(copy, capsys, decision, message):
    (copy / "report.json").write_text(json.dumps({"decision": decision}))
    refused(capsys, message, *commands(copy)[1])
    refused(capsys, message, *commands(copy)[0])


def side_file(location: str, *, where: str = "initializer", length: int = 4) -> onnx.ModelProto:
    """A model that adds a number, which it takes from a side file."""
    held = numpy_helper.from_array(np.zeros(1, np.float32), "held")
    held.ClearField("raw_data")
    held.data_location = TensorProto.EXTERNAL
    held.external_data.add(key="location", value=location)
    held.external_data.add(key="length", value=str(length))
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1]) for name in ("x", "y")]
    nodes = [helper.make_node("Add", ["x", "held"], ["y"])]
    if where == "attribute":
        nodes.insert(0, helper.make_node("Constant", [], ["held"], value=held))
    elif where == "subgraph":
        inner = helper.make_graph(
            [helper.make_node("Identity", ["held"], ["z"])], "inner", [], [ports[1]], [held]
        )
        nodes = [helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [held] if where == "initializer" else [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("where", ["initializer", "attribute", "subgraph"])
@pytest.mark.parametrize(
    "location", ["../../../../../etc/passwd", "/etc/passwd", "a/../../x", "link", "up/x"]
)
def test_weights_from_outside_the_folder(tmp_path, capsys, location, where):
    folder = tmp_path / "m"
    folder.mkdir()
    (tmp_path / "x").write_bytes(b"root:")
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "up").symlink_to(tmp_path)
    (folder / "model.onnx").write_bytes(side_file(location, where=where).SerializeToString())
    for runtime in ("onnxruntime", "openvino"):
        file = str(folder / "model.onnx")
        refused(capsys, "outside its own folder", "measure", file, "--runtime", runtime)
        task = ["--task", "synthetic", "--set", "samples=64"]
        refused(capsys, "outside its own folder", "evaluate", file, "--runtime", runtime, *task)


@pytest.mark.timeout(60)
def test_side_files_that_are_none(tmp_path, capsys):
    file = tmp_path / "model.onnx"
    file.write_bytes(side_file("weights").SerializeToString())
    refused(capsys, "missing", "measure", str(file))
    os.mkfifo(tmp_path / "weights")
    refused(capsys, "no plain file", "measure", str(file))
    (tmp_path / "weights").unlink()
    (tmp_path / "weights").write_bytes(b"\0\0\x80\x3f")
    file.write_bytes(side_file("weights", length=1 << 40).SerializeToString())
    refused(capsys, "cannot load", "measure", str(file), "--runtime", "onnxruntime")
    file.write_bytes(side_file("weights").SerializeToString())
    assert main(["measure", str(file), "--repeats", "1", "--runtime", "onnxruntime", "--json"]) == 0


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        (TensorProto.FLOAT, [1, 1 << 20, 1 << 20], "bytes a sample"),
        (TensorProto.STRING, [1, 2], "no example"),
        (TensorProto.UNDEFINED, [1, 2], "no example"),
    ],
)
def test_inputs_that_cannot_be_made(tmp_path, capsys, kind, shape, message):
    ports = [helper.make_tensor_value_info(name, kind, shape) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(capsys, message, "measure", str(tmp_path / "model.onnx"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize("content", [b"", b"\x08\x09", b"\x80\x04\x95", b"\xff" * 1000])
def test_onnx_files_that_are_none(tmp_path, capsys, content):
    (tmp_path / "model.onnx").write_bytes(content)
    refused(capsys, "model.onnx", "measure", str(tmp_path / "model.onnx"))
    refused(capsys, "inspect reads PyTorch modules", "inspect", str(tmp_path / "model.onnx"))


def test_inspect_of_what_is_no_model(tmp_path, capsys):
    refused(capsys, "not an artifact folder", "inspect", str(tmp_path))
    (tmp_path / "weights.bin").write_bytes(b"x")
    refused(capsys, "is a file", "inspect", str(tmp_path / "weights.bin"))
    refused(capsys, "no such folder", "inspect", str(tmp_path / "nowhere"))
