"""Checkpoints of OneFlow that are damaged, or made to do harm: each is refused by name of what is wrong."""

from __future__ import annotations

import collections
import os
import pickle
import random
import shutil
import time
from pathlib import Path

import pytest
import torch

from lianzhi.deploy import oneflow
from lianzhi.errors import ArtifactError
from lianzhi.models.checkpoints import read_oneflow
from lianzhi.models.checkpoints.oneflow import is_oneflow

DATA = Path(__file__).parent / "data" / "oneflow"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A checkpoint of two tensors: `weight` lies in tensor_0, `bias` in tensor_1."""
    return oneflow.write(
        {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}, tmp_path / "checkpoint"
    )


def refused(folder: Path) -> str:
    with pytest.raises(ArtifactError) as error:
        read_oneflow(folder)
    return str(error.value)


def meta(dims: list[int], kind: str = "kFloat") -> str:
    return "shape {\n" + "".join(f"  dim: {dim}\n" for dim in dims) + f"}}\ndata_type: {kind}\n"


class Attack:
    """Its pickle makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


def test_code_is_not_run(folder, tmp_path):
    content = {"protocol_version": 1, "data": {"weight": Attack(tmp_path / "ran")}}
    (folder / "pickled_data").write_bytes(pickle.dumps(content))
    message = refused(folder)
    assert f"{folder}/pickled_data names '{os.system.__module__}.system'" in message
    assert "could run code; nothing was run" in message
    assert "oneflow.save(model.state_dict(), folder)" in message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [
        None,
        [1],
        {"data": {}},
        {"protocol_version": 1},
        {"protocol_version": 2, "data": {}},
        {"protocol_version": "1", "data": {}},
    ],
)
def test_a_pickle_of_another_form_is_refused(folder, content):
    (folder / "pickled_data").write_bytes(pickle.dumps(content))
    message = refused(folder)
    if isinstance(content, dict) and len(content) == 2:
        assert f"has the format version {content['protocol_version']!r}; version 1 is read" in message
    else:
        assert "not one that oneflow.save wrote" in message


@pytest.mark.parametrize(
    "place", ["../out", "/etc/ab", "..", ".", "a/b", "", "a\0b", "tensor_0/", "tensor 0"]
)
def test_a_path_that_leaves_the_folder_is_refused(folder, place, tmp_path):
    shutil.copytree(folder / "tensor_0", tmp_path / "out")
    data = (folder / "pickled_data").read_bytes()
    old, new = (len(name).to_bytes(4, "little") + name for name in (b"tensor_0", place.encode()))
    assert data.count(old) == 1
    (folder / "pickled_data").write_bytes(data.replace(old, new))
    message = refused(folder)
    assert f"the data of 'weight' are said to lie at {place!r}" in message
    assert "no folder of this checkpoint" in message


def test_a_tensor_without_a_path_is_refused(folder):
    data = (folder / "pickled_data").read_bytes()
    state = b"}X\x04\x00\x00\x00pathX\x08\x00\x00\x00tensor_0sb"
    assert data.count(state) == 1
    (folder / "pickled_data").write_bytes(data.replace(state, b""))
    assert "the data of 'weight' are said to lie at None" in refused(folder)


@pytest.mark.parametrize("link", ["pickled_data", "tensor_0", "tensor_0/out", "tensor_0/meta"])
def test_links_are_refused(folder, link, tmp_path):
    (folder / link).rename(tmp_path / "elsewhere")
    (folder / link).symlink_to(tmp_path / "elsewhere")
    assert f"{folder / link} is a link" in refused(folder)


def test_a_variable_of_a_snapshot_that_is_a_link_is_refused(tmp_path):
    shutil.copytree(DATA / "snapshot", tmp_path / "snapshot")
    (tmp_path / "snapshot" / "dense-w").symlink_to(DATA / "snapshot" / "dense-v")
    assert f"{tmp_path / 'snapshot' / 'dense-w'} is a link" in refused(tmp_path / "snapshot")


def test_the_folder_itself_may_be_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert len(read_oneflow(tmp_path / "link")) == 2


@pytest.mark.parametrize("missing", ["tensor_0", "tensor_0/out", "tensor_0/meta"])
def test_missing_files_are_named(folder, missing):
    path = folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    message = refused(folder)
    assert f"{path}{'/meta' if missing == 'tensor_0' else ''} is missing, and 'weight' needs it" in message


def test_what_is_no_plain_file_is_refused_without_waiting(folder):
    (folder / "tensor_0" / "out").unlink()
    os.mkfifo(folder / "tensor_0" / "out")
    assert "is not a plain file" in refused(folder)
    (folder / "tensor_1" / "meta").unlink()
    (folder / "tensor_1" / "meta").mkdir()
    (folder / "tensor_0" / "out").unlink()
    (folder / "tensor_0" / "out").write_bytes(bytes(24))
    assert "is not a plain file" in refused(folder)


@pytest.mark.parametrize("size", [0, 23, 25, 48])
def test_another_length_is_refused(folder, size):
    (folder / "tensor_0" / "out").write_bytes(bytes(size))
    message = refused(folder)
    assert f"{folder}/tensor_0/out has {size} bytes" in message
    assert "'weight' of shape [2, 3] and type torch.float32 has 24" in message


@pytest.mark.parametrize(
    "dims", [[-2, -3], [-1, 6], [2**62, 2**62], [2**63, 0], [0, 2**61], [99999999999999999999], [1] * 21]
)
def test_impossible_shapes_are_refused(folder, dims):
    (folder / "tensor_0" / "meta").write_text(meta(dims))
    message = refused(folder)
    assert f"{folder}/tensor_0/meta is damaged: 'weight' has the impossible shape {dims}" in message


@pytest.mark.parametrize("dims", [[2**40], [2**30, 2**29], [6, 0, 6], [7], []])
def test_shapes_that_do_not_fit_the_file_are_refused_before_memory_is_allocated(folder, dims):
    (folder / "tensor_0" / "meta").write_text(meta(dims))
    assert f"'weight' of shape {dims} and type torch.float32 has" in refused(folder)


def test_a_file_too_large_for_memory_is_refused(folder):
    """Sparse: terabytes that take no room on the disk."""
    (folder / "tensor_0" / "meta").write_text(meta([1 << 43], "kInt8"))
    try:
        os.truncate(folder / "tensor_0" / "out", 1 << 43)
    except OSError:
        pytest.skip("this disk has no sparse files of that length")
    assert "this machine has not the memory for it" in refused(folder)


def test_bytes_that_are_no_value_of_the_type_are_refused(folder):
    (folder / "tensor_0" / "meta").write_text(meta([24], "kBool"))
    assert "a bool is neither 0 nor 1" in refused(folder)
    (folder / "tensor_0" / "meta").write_text(meta([2, 3], "kBFloat16"))
    assert torch.equal(
        read_oneflow(folder)["weight"], torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    )  # exact
    (folder / "tensor_0" / "out").write_bytes(torch.full((6,), 1 / 3).numpy().tobytes())
    assert "its values are no bfloat16 values" in refused(folder)
    (folder / "tensor_0" / "meta").write_text(meta([12], "kBFloat16"))
    assert read_oneflow(folder)["weight"].dtype == torch.bfloat16  # two bytes a value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "shape {",
        "data_type: kFloat",
        "shape { dim: x } data_type: kFloat",
        "shape { dim: 2 } shape { dim: 3 } data_type: kFloat",
        "shape { dim: 1.5 } data_type: kFloat",
        "shape { dim: 2 dim: 3 } data_type: kFloat data_type: kInt8",
        "shape { size: 6 } data_type: kFloat",
        "{" * 5000,
        "shape { " + "dim: 1 " * 2000,
    ],
)
def test_garbage_in_meta_is_refused(folder, text):
    (folder / "tensor_0" / "meta").write_text(text)
    message = refused(folder)
    assert (
        f"{folder}/tensor_0/meta is damaged: 'weight' should be described by a shape and a data_type"
        in message
    )
    assert len(message) < 600


def test_meta_that_is_no_text_or_endless_is_refused(folder):
    (folder / "tensor_0" / "meta").write_bytes(b"\xff\xfe" * 9)
    assert "is not UTF-8 text" in refused(folder)
    (folder / "tensor_0" / "meta").write_text(" " * 20_000)
    assert "has 20,000 bytes; at most" in refused(folder)


@pytest.mark.parametrize(
    "kind", ["kOFRecord", "kTensorBuffer", "kInvalidDataType", "kUInt128", "float32", "2"]
)
def test_other_types_are_refused_by_name(folder, kind):
    (folder / "tensor_0" / "meta").write_text(meta([2, 3], kind))
    assert f"'weight' has the type {kind}, which is not read" in refused(folder)


@pytest.mark.parametrize(
    "spelling", ["shape{dim:2 dim:3}data_type:kFloat", "shape: {\n dim: 2\n\tdim: 3 }\r\ndata_type: kFloat"]
)
def test_other_spellings_of_the_same_text_are_read(folder, spelling):
    (folder / "tensor_0" / "meta").write_text(spelling)
    assert read_oneflow(folder)["weight"].shape == (2, 3)


def test_values_that_are_no_tensors_are_named(folder):
    data = collections.OrderedDict(weight=3, note="best")
    (folder / "pickled_data").write_bytes(pickle.dumps({"protocol_version": 1, "data": data}))
    assert "'weight', 'note' are no tensor; give a state dict" in refused(folder)
    (folder / "pickled_data").write_bytes(pickle.dumps({"protocol_version": 1, "data": [1]}))
    assert "holds a list, not a state dict" in refused(folder)


def test_a_cut_off_pickle_is_refused_at_any_length(folder):
    whole = (folder / "pickled_data").read_bytes()
    for length in range(len(whole)):
        (folder / "pickled_data").write_bytes(whole[:length])
        assert "pickled_data is damaged, or no pickle" in refused(folder)


def test_one_file_runs_no_code(tmp_path):
    file = tmp_path / "model.pt"
    file.write_bytes(pickle.dumps({"protocol_version": 1, "oneflow": None, "data": Attack(tmp_path / "ran")}))
    assert is_oneflow(file)
    assert f"{file} names '{os.system.__module__}.system'" in refused(file)
    assert not (tmp_path / "ran").exists()


def test_one_file_that_is_too_long_is_not_read(tmp_path):
    shutil.copy(DATA / "one_file", tmp_path / "model")
    try:
        os.truncate(tmp_path / "model", (1 << 36) + 1)
    except OSError:
        pytest.skip("this disk has no sparse files of that length")
    assert "bytes; at most" in refused(tmp_path / "model")


def test_a_pickle_of_depth_and_of_shared_values_is_refused_at_once(folder):
    start = b"\x80\x04}(X\x10\x00\x00\x00protocol_versionK\x01X\x04\x00\x00\x00data"
    deep = b"}X\x01\x00\x00\x00a" * 20_000 + b"N" + b"s" * 20_000
    shared = b"}q\x00" + b"}(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00uq\x00" * 5000
    for inside in (deep, b"(" + shared + b"t"):
        began = time.process_time()
        (folder / "pickled_data").write_bytes(start + inside + b"u.")
        message = refused(folder)
        assert "no tensor" in message or "holds a tuple" in message
        assert len(message) < 600
        assert time.process_time() - began < 2


def test_a_pickle_that_is_too_long_is_not_read(folder):
    os.truncate(folder / "pickled_data", (1 << 26) + 1)
    assert "has 67,108,865 bytes; at most" in refused(folder)


def test_folders_that_are_no_variables_are_named(tmp_path):
    graph = tmp_path / "graph"
    shutil.copytree(DATA / "graph", graph)
    (graph / "notes").mkdir()
    assert f"{graph / 'notes'} is no variable of a checkpoint: 'out' and 'meta' are not in it" in refused(
        graph
    )
    (graph / "notes").rmdir()
    (graph / "net.weight" / "out").unlink()
    assert f"{graph / 'net.weight' / 'out'} is missing, and 'net.weight' needs it" in refused(graph)
    (graph / "net.bias" / "meta").unlink()
    assert "it has neither 'pickled_data' nor folders with 'meta' and 'out'" in refused(graph)


def test_a_variable_of_lazy_graphs_without_meta_or_data_is_missed(tmp_path):
    snapshot = tmp_path / "snapshot"
    shutil.copytree(DATA / "nested", snapshot)
    variable = snapshot / "bert" / "layer_0" / "weight"
    (variable / "meta").unlink()
    assert f"{variable / 'meta'} is missing, and 'bert/layer_0/weight' needs it" in refused(snapshot)
    (variable / "out").unlink()
    assert f"{variable} is no variable of a checkpoint" in refused(snapshot)


def test_a_folder_whose_name_is_no_text_is_refused(tmp_path):
    shutil.copytree(DATA / "snapshot", tmp_path / "snapshot")
    try:
        os.mkdir(os.fsencode(tmp_path / "snapshot") + b"/\xff-weight")
    except OSError:
        pytest.skip("this file system has only names in UTF-8")
    assert r"'\udcff-weight' is no name; names are UTF-8 text" in refused(tmp_path / "snapshot")


def test_endless_folders_in_a_snapshot_are_refused(tmp_path):
    (tmp_path / "a" / "/".join("b" * 40)).mkdir(parents=True)
    (tmp_path / "snapshot_done").touch()
    assert "too many folders for a checkpoint" in refused(tmp_path)


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", denied)
    assert "permission denied" in refused(tmp_path)
    with pytest.raises(ArtifactError, match="permission denied"):
        is_oneflow(tmp_path)


def test_any_damage_is_refused_or_leaves_the_values_that_are_there(tmp_path):
    """A pickle has no checksum: a name may change. A value is one of those that were written, whole, or the error is named."""
    draw, outcomes = random.Random(0), collections.Counter()
    for source in ("checkpoint", "names"):
        folder = tmp_path / source
        shutil.copytree(DATA / source, folder)
        known = {value.numpy().tobytes() for value in read_oneflow(folder).values()}
        known |= {path.read_bytes() for path in folder.glob("*/out")}
        files = [folder / "pickled_data", *folder.glob("*/meta")]
        for _ in range(200):
            path = draw.choice(files[:1] * 5 + files[1:])
            whole = path.read_bytes()
            damaged = bytearray(whole)
            for _ in range(draw.randint(1, 3)):
                damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
            path.write_bytes(damaged[: draw.randrange(len(damaged))] if draw.random() < 0.2 else damaged)
            try:
                values = read_oneflow(folder)
                assert {value.numpy().tobytes() for value in values.values()} <= known
                outcomes["read"] += 1
            except ArtifactError as error:
                outcomes["refused" if str(folder) in str(error) else "without a place"] += 1
            path.write_bytes(whole)
    assert outcomes["read"] > 10
    assert outcomes["refused"] > 200
    assert outcomes["without a place"] == 0
