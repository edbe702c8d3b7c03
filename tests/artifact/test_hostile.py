"""A crafted, damaged or newer artifact is refused with a reason, before memory is allocated, and runs no code."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import change, fuzz, weights
from torch import nn

from lianzhi import artifact, files, models
from lianzhi.errors import ArtifactError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = torch.relu(self.bn(self.conv(x))).chunk(2, dim=1)
        y = torch.cat([left, right * 0.5], 1).mean((2, 3))
        return self.head(y.view(x.shape[0], -1))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with all its members."""
    return artifact.save(
        Net(),
        tmp_path_factory.mktemp("whole") / "a",
        example_inputs=torch.zeros(1, 3, 6, 6),
        preprocess={"size": [6, 6], "channels": 3, "mean": [0.0] * 3, "std": [1.0] * 3},
        labels=["a", "b", "c"],
        extra={
            "model.onnx": b"\x08\x09",
            "recipe.yaml": "",
            "report.json": {},
            "report.html": "",
            "predict.py": "",
        },
    )


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of a model of the zoo."""
    model = models.model("resnet20").eval()
    folder = artifact.save(
        model, tmp_path_factory.mktemp("zoo") / "a", example_inputs=torch.zeros(1, 3, 32, 32)
    )
    assert files.read_json(folder / "architecture.json")["kind"] == "zoo"
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return Path(shutil.copytree(whole, tmp_path / "a"))


class Payload:
    """Its pickle writes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "the code has run")


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        artifact.load(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900


MEMBERS = sorted(artifact.MEMBERS - {"model.onnx.data", "report.md"})


@pytest.mark.parametrize("kind", ["pickle", "torch.save", "protocol 0"])
@pytest.mark.parametrize("member", [*MEMBERS, "extra.pkl", "extra.PT", "data.bin"])
def test_a_pickle_in_any_member(folder, tmp_path, member, kind):
    ran = tmp_path / "ran"
    if kind == "torch.save":
        torch.save(Payload(ran), folder / member)
    else:
        (folder / member).write_bytes(pickle.dumps(Payload(ran), protocol=0 if kind == "protocol 0" else 4))
    if member == "model.safetensors":
        change(folder, lambda data: None)
    read = member in ("architecture.json", "model.safetensors") or member.startswith("extra.")
    if kind == "protocol 0" and not read:
        artifact.load(folder)  # plain text to anybody who does not unpickle it, and load does not open it
    else:
        refused(
            folder,
            "damaged"
            if member == "model.safetensors" or (read and kind == "protocol 0" and "extra" not in member)
            else "run code",
        )
    assert not ran.exists()


def test_links_and_paths_that_leave_the_folder(folder, tmp_path):
    outside = shutil.copy(folder / "model.safetensors", tmp_path / "model.safetensors")
    for name in ("../model.safetensors", str(outside), "..", "a/../../model.safetensors", "", None, 3, ["x"]):
        change(folder, lambda data, name=name: data["weights"].update(file=name))
        refused(folder, "is not the name of a file in the folder")
    change(folder, lambda data: data["weights"].update(file="model.safetensors"))
    artifact.load(folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(outside)
    refused(folder, "is a link")
    (folder / "model.safetensors").unlink()
    refused(folder, "missing|there is no such file")
    (folder / "labels.txt").unlink()
    (folder / "labels.txt").symlink_to("/etc/passwd")
    refused(folder, "is a link")


def test_a_newer_format(folder):
    change(folder, lambda data: data.update(format=2, more="things"))
    refused(folder, r"has format 2, and this version of Lianzhi reads up to 1; update it")
    for version in (0, -1, "1", 1.0, True, None):
        change(folder, lambda data, version=version: data.update(format=version))
        refused(folder, "no format version")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: data.update(kind="pickle"), "keys are not those"),
        (lambda data: data.update(kind=["graph"]), "keys are not those"),
        (lambda data: data.update(kind="zoo"), "keys are not those"),
        (lambda data: data.update(code="x"), "keys are not those"),
        (lambda data: data.pop("outputs"), "keys are not those"),
        (lambda data: data.update(weights="model.safetensors"), "not described by"),
        (lambda data: data["weights"].update(sha256="0" * 64), "SHA-256"),
        (lambda data: data["weights"].update(bytes=1 << 70), "damaged"),
        (lambda data: data.update(ties={"a": "b"}), "does not fit the weights"),
        (lambda data: data.update(ties={"conv.weight": "head.weight"}), "does not fit the weights"),
        (lambda data: data.update(ties={"new": "conv.weight"}), "tensors are not those"),
        (lambda data: data.update(ties=[]), "ties are not a table"),
        (lambda data: data.update(graph=None), "it needs"),
        (lambda data: data["inputs"].update(shape=[1, 3, 1 << 40, 6]), "more than"),
        (lambda data: data["inputs"].update(shape=[1, 3, -6, 6]), "does not describe an input"),
        (lambda data: data["inputs"].update(shape=[1, 3, None, 6]), "does not describe an input"),
        (lambda data: data["inputs"].update(dtype="complex9"), "does not describe an input"),
        (lambda data: data["inputs"].update(length="24"), "does not describe an input"),
        (lambda data: data["inputs"].update(length=0), "does not describe an input"),
        (lambda data: data["inputs"].update(dtype=["float32"]), "does not describe an input"),
        (lambda data: data["inputs"].update(shape=[1, 4, 6, 6]), "damaged"),
        (lambda data: data["inputs"].update(dtype="int64"), "damaged"),
        (lambda data: data.update(inputs=3), "does not describe inputs"),
        (lambda data: data.update(outputs={}), "other shapes or types"),
        (lambda data: data["graph"]["nodes"].pop(), "damaged"),
    ],
)
def test_an_architecture_that_is_not_what_was_saved(folder, edit, message):
    change(folder, edit)
    refused(folder, message)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '"x"', "{", '{"format": 1, "format": 1}', "[" * 10**6, "1" * 10**6]
)
def test_an_architecture_that_is_no_table(folder, text):
    (folder / "architecture.json").write_text(text)
    refused(folder, "architecture.json is damaged|architecture.json")


def test_one_changed_digit_is_damage(folder):
    path = folder / "architecture.json"
    text = path.read_text()
    assert text.count("1e-05") == 1
    path.write_text(text.replace("1e-05", "2e-05"))
    refused(folder, "its contents are not those that were saved")


def test_no_artifact_at_all(tmp_path):
    refused(tmp_path / "nowhere", "there is no such folder")
    refused(tmp_path, "not an artifact folder")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "is not a folder")


def test_weights_that_claim_to_be_huge(folder):
    tracemalloc.start()
    weights(folder, lambda header: header["conv.weight"].update(shape=[1 << 20, 1 << 20, 3, 3]))
    refused(folder, "does not fit in")
    weights(
        folder, lambda header: header["conv.weight"].update(shape=[4, 3, 3, 3], data_offsets=[0, 1 << 50])
    )
    refused(folder, "damaged")
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


def test_tensors_that_overlap_or_leave_gaps(folder):
    def onto(header: Any) -> None:
        header["bn.weight"]["data_offsets"] = header["bn.bias"]["data_offsets"]

    weights(folder, onto)
    refused(folder, "overlap, or leave gaps")


@pytest.mark.timeout(60)
def test_a_million_nodes(folder):
    relu = {"op": "call", "name": "more", "target": "aten.relu.default", "args": [], "kwargs": {}}
    change(folder, lambda data: data["graph"].update(nodes=data["graph"]["nodes"] + [relu] * 100_000))
    refused(folder, "nodes; at most 50,000")
    change(folder, lambda data: data["graph"].update(nodes=[0] * 10**6))
    refused(folder, "nodes; at most 50,000")


@pytest.mark.parametrize(
    "edit",
    [
        lambda header: header["conv.weight"].update(shape=[3, 4, 3, 3]),
        lambda header: header["conv.weight"].update(shape=[108]),
        lambda header: header["conv.weight"].update(dtype="I32"),
        lambda header: header.update({"conv.other": header.pop("conv.weight")}),
        lambda header: header.update({"": header.pop("conv.weight")}),
    ],
)
def test_weights_of_other_shapes_types_and_names(folder, edit):
    weights(folder, edit)
    refused(folder, "damaged|not those")


def test_weights_cut_off_or_changed(folder):
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw[:-1])
    refused(folder, "bytes, not")
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    refused(folder, "SHA-256 is not the one")
    path.write_bytes(raw[:100])
    change(folder, lambda data: None)
    refused(folder, "damaged")


def call(data: Any, target: str) -> Any:
    return next(node for node in data["graph"]["nodes"] if node.get("target") == target)


def test_an_op_off_the_allow_list(folder):
    change(
        folder,
        lambda data: call(data, "aten.relu.default").update(
            target="aten.from_file.default", args=["/etc/passwd"]
        ),
    )
    refused(folder, r"aten\.from_file\.default' .* is not on the allow-list")


def test_ops_that_would_make_huge_tensors(folder):
    """Refused on tensors without memory; the real ones are never made."""
    huge = {"op": "call", "name": "huge", "target": "aten.zeros.default", "kwargs": {}}
    for size in (1 << 40, 1 << 62):
        change(
            folder,
            lambda data, size=size: data["graph"].update(
                nodes=[*data["graph"]["nodes"], {**huge, "args": [[size]]}]
            ),
        )
        refused(folder, "would make a tensor|damaged")
        change(folder, lambda data: data["graph"]["nodes"].pop())
    artifact.load(folder)
    change(folder, lambda data: call(data, "aten.conv2d.default")["args"].__setitem__(4, [1 << 20, 1 << 20]))
    refused(folder, "would make a tensor|damaged")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: data.update(name="resnet9000"), "unknown model 'resnet9000'"),
        (lambda data: data.update(name=["resnet20"]), "needs changes"),
        (lambda data: data.update(name="../resnet20"), "unknown model"),
        (lambda data: data.update(code="x"), "needs changes"),
        (lambda data: data["config"].update(weights="/etc/passwd"), "config that no saved model has"),
        (lambda data: data["config"].update(width=1 << 30), "no saved model has"),
        (lambda data: data["config"].update(width={"a": 1}), "no saved model has"),
        (lambda data: data.update(config=[]), "config that no saved model has"),
        (lambda data: data["config"].update(nonsense=1), "nonsense"),
        (lambda data: data.update(changes=[]), "not a table"),
        (lambda data: data["changes"].update({"nowhere": {"a": 1}}), "has not"),
        (lambda data: data.update(lengths=[]), "lengths are not a table"),
        (lambda data: data.update(lengths={"conv1": 1}), "'conv1', which is no list"),
        (lambda data: data.update(lengths={"nowhere": 1}), "'nowhere', which is no list"),
        (lambda data: data.update(lengths={"layer1": 0}), "cannot keep 0"),
        (lambda data: data.update(lengths={"layer1": -1}), "cannot keep -1"),
        (lambda data: data.update(lengths={"layer1": 3}), "has 3 modules, and cannot keep 3"),
        (lambda data: data.update(lengths={"layer1": True}), "cannot keep True"),
        (lambda data: data.update(lengths={"layer1": 1 << 40}), "cannot keep"),
        (lambda data: data.update(lengths={"layer1": 2}), "weights are not those"),
        (lambda data: data["changes"].update({"conv1": {"forward": 1}}), "cannot become"),
        (lambda data: data["changes"].update({"conv1": {"__class__": 1}}), "cannot become"),
        (lambda data: data["changes"].update({"conv1": {"_parameters": {}}}), "cannot become"),
        (lambda data: data["changes"].update({"conv1": {"training": True}}), "cannot become"),
        (lambda data: data["changes"].update({"conv1": {"padding_mode": "x"}}), "cannot become"),
        (lambda data: data["changes"].update({"conv1": {"out_channels": "x"}}), "cannot become"),
        (lambda data: data["changes"].update({"conv1": {"out_channels": 1 << 40}}), "cannot become"),
        (
            lambda data: data["changes"].update({"conv1": {"padding": [1 << 20, 1 << 20]}}),
            "would make a tensor|damaged",
        ),
        (lambda data: data["changes"].update({"conv1": {"groups": 7}}), "damaged"),
        (lambda data: data["tensors"].pop("conv1.weight"), "weights are not those"),
        (lambda data: data["tensors"].update({"conv1.weight": "buffer"}), "'conv1.weight' is 'buffer'"),
        (
            lambda data: data["tensors"].update({"bn1.num_batches_tracked": "parameter"}),
            "bn1.num_batches_tracked",
        ),
    ],
)
def test_a_model_of_the_zoo_that_was_tampered_with(zoo, tmp_path, edit, message):
    folder = Path(shutil.copytree(zoo, tmp_path / "a"))
    change(folder, lambda data: edit(data["zoo"]))
    refused(folder, message)


def test_no_code_runs_and_no_network_is_used(folder, tmp_path):
    """In a process that refuses to compile text from the folder, to unpickle, or to import what was not there."""
    ran = tmp_path / "ran"
    (folder / "predict.py").write_text(f"open({str(ran)!r}, 'w')")
    (folder / "lianzhi.py").write_text(f"open({str(ran)!r}, 'w')")
    (folder / "__init__.py").write_text(f"open({str(ran)!r}, 'w')")
    code = """
        import sys, lianzhi, torch
        refused = {"pickle.find_class", "socket.connect", "subprocess.Popen", "os.system", "os.exec", "marshal.loads"}
        seen = []
        sys.addaudithook(lambda event, args: seen.append(event) if event in refused else None)
        import pickle
        print(lianzhi.load(sys.argv[1])(torch.zeros(1, 3, 6, 6)).shape, [event for event in seen if event != "marshal.loads"])
    """
    import textwrap

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.stdout.strip() == "torch.Size([1, 3]) []", done.stderr
    assert not ran.exists()


def test_an_archive_is_refused(folder):
    with zipfile.ZipFile(folder / "notes", "w") as file:
        file.writestr("data.pkl", "x")
    refused(folder, "is an archive, which can run code")


def test_damaged_at_random(whole, zoo, tmp_path):
    counts = fuzz([whole, whole, zoo], tmp_path / "a", seed=0, rounds=300)
    assert counts["refused"] > 200
    assert counts["loaded"] > 5, "no mutation was harmless: is anything loaded at all?"


@pytest.mark.slow
def test_damaged_at_random_many_times(whole, zoo, tmp_path):
    for seed in range(1, 11):
        fuzz([whole, whole, zoo], tmp_path / "a", seed=seed, rounds=500)


def test_the_members_are_known(whole):
    assert set(os.listdir(whole)) <= artifact.MEMBERS
