"""State dicts as OneFlow's checkpoints: what is written is read back bit for bit; what OneFlow has not is refused before."""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lianzhi as lz
from lianzhi.deploy.oneflow import read, write
from lianzhi.deploy.oneflow.writing import KINDS
from lianzhi.errors import ArtifactError

NUMPY = {
    torch.float32: "<f4",
    torch.float64: "<f8",
    torch.float16: "<f2",
    torch.int8: "i1",
    torch.uint8: "u1",
    torch.int32: "<i4",
    torch.int64: "<i8",
    torch.bool: "?",
}


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().numpy().tobytes()


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any type, shape and bits (also NaN with a payload, denormals, minus zero); some in another order in memory."""
    dtype = draw(st.sampled_from(sorted(KINDS, key=str)))
    shape = draw(st.lists(st.integers(0, 3), max_size=5))
    length = math.prod(shape) * dtype.itemsize
    data = draw(st.binary(min_size=length, max_size=length))
    if dtype == torch.bool:
        data = bytes(value & 1 for value in data)
    value = torch.from_numpy(np.frombuffer(data, NUMPY[dtype]).reshape(shape).copy())
    if draw(st.booleans()) and value.dim() > 1:
        value = value.transpose(0, -1)
    return nn.Parameter(value) if dtype.is_floating_point and draw(st.booleans()) else value


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=20), tensors(), max_size=6), st.data())
def test_what_is_written_is_read(tmp_path_factory, state, data):
    if state and data.draw(st.booleans()):
        state[data.draw(st.text())] = state[next(iter(state))]
    folder = write(state, tmp_path_factory.mktemp("any") / "checkpoint")
    again = read(folder)
    assert list(again) == list(state)
    for name, tensor in state.items():
        assert again[name].dtype == tensor.dtype
        assert again[name].shape == tensor.shape
        assert bits(again[name]) == bits(tensor)


def test_the_files_are_those_of_oneflow(tmp_path):
    """By hand: what `oneflow.save` of 0.9.0 has in its folders."""
    write(
        {"w": torch.tensor([[1.0, -2.0, 0.5]]), "n": torch.tensor(3), "e": torch.ones(0, 2)}, tmp_path / "a"
    )
    found = {str(path.relative_to(tmp_path / "a")) for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert found == {"pickled_data", *(f"tensor_{i}/{file}" for i in range(3) for file in ("meta", "out"))}
    texts = [(tmp_path / "a" / f"tensor_{i}" / "meta").read_text() for i in range(3)]
    assert texts[0] == "shape {\n  dim: 1\n  dim: 3\n}\ndata_type: kFloat\n"
    assert texts[1] == "shape {\n}\ndata_type: kInt64\n"
    assert texts[2] == "shape {\n  dim: 0\n  dim: 2\n}\ndata_type: kFloat\n"
    data = [(tmp_path / "a" / f"tensor_{i}" / "out").read_bytes() for i in range(3)]
    assert data == [bytes.fromhex("0000803f 000000c0 0000003f"), b"\3" + bytes(7), b""]


class Stored:
    """Stands in for OneFlow's classes while Python itself unpickles."""

    def __setstate__(self, state: dict[str, str]) -> None:
        self.state = state


def test_python_unpickles_what_is_written_as_oneflow_does(tmp_path, monkeypatch):
    class Parameter(Stored):
        pass

    oneflow, inside = types.ModuleType("oneflow"), types.ModuleType("oneflow.nn")
    oneflow.Tensor, inside.Parameter = Stored, Parameter
    monkeypatch.setitem(sys.modules, "oneflow", oneflow)
    monkeypatch.setitem(sys.modules, "oneflow.nn", inside)
    weight = torch.ones(2)
    write({"a": weight, "b": nn.Parameter(torch.ones(3)), "tied": weight}, tmp_path / "a")
    data = (tmp_path / "a" / "pickled_data").read_bytes()
    pickletools.dis(data, io.StringIO())  # checks the instructions and the stack
    loaded = pickle.loads(data)
    assert loaded.keys() == {"protocol_version", "data"}
    assert loaded["protocol_version"] == 1
    assert type(loaded["data"]) is OrderedDict
    assert [type(value) for value in loaded["data"].values()] == [Stored, Parameter, Stored]
    assert [value.state["path"] for value in loaded["data"].values()] == ["tensor_0", "tensor_1", "tensor_0"]
    assert loaded["data"]["a"] is loaded["data"]["tied"]


def test_one_tensor_of_two_names_is_written_once(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.head.weight = self.embedding.weight

    again = read(write(Tied().state_dict(), tmp_path / "a"))
    assert again["embedding.weight"] is again["head.weight"]
    assert len(list((tmp_path / "a").glob("tensor_*"))) == 1
    square = torch.randn(3, 3)
    again = read(write({"a": square, "t": square.t(), "part": square[:2], "e": square[:0]}, tmp_path / "b"))
    assert torch.equal(again["t"], again["a"].t())
    assert torch.equal(again["part"], again["a"][:2])


def test_a_tensor_whose_sign_is_lazy_is_written_as_its_values(tmp_path):
    value = torch.complex(torch.ones(3), torch.arange(3.0)).conj().imag
    assert value.is_neg()
    assert torch.equal(read(write({"a": value}, tmp_path / "a"))["a"], torch.tensor([-0.0, -1.0, -2.0]))
    again = read(write({"plus": value._neg_view(), "minus": value}, tmp_path / "both"))
    assert torch.equal(again["plus"], -again["minus"])


def test_a_pruned_model_goes_out_and_comes_back(tmp_path):
    torch.manual_seed(0)
    images = torch.randn(2, 1, 28, 28)
    model = lz.model("lenet5_classic").eval()
    pruned = lz.prune.plan(model, images, ratio=0.5).apply().eval()
    state = read(write(pruned.state_dict(), tmp_path / "a"))
    assert sum(value.numel() for value in state.values()) < 0.6 * sum(
        value.numel() for value in model.state_dict().values()
    )
    before = pruned(images)
    for value in pruned.state_dict().values():
        value.zero_()
    assert not torch.equal(pruned(images), before)
    pruned.load_state_dict(state)
    assert torch.equal(pruned(images), before)


class Wrapped(torch.Tensor):
    """Says that it is of float32, and holds something else."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=torch.float32)

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), options=None):
        return arguments[0]


REFUSED = {
    "a wrapper": (Wrapped(torch.ones(2, dtype=torch.int8)), "is a Wrapped that gives no plain values"),
    "bfloat16": (
        torch.ones(2, dtype=torch.bfloat16),
        r"has the type torch.bfloat16.*convert it first \(tensor.float",
    ),
    "int16": (torch.ones(2, dtype=torch.int16), r"has the type torch.int16.*convert it first \(tensor.int"),
    "complex": (torch.ones(2, dtype=torch.complex64), "has the type torch.complex64"),
    "float8": (torch.ones(2).to(torch.float8_e4m3fn), "has the type torch.float8_e4m3fn"),
    "sparse": (torch.eye(2).to_sparse(), "has the layout torch.sparse_coo"),
    "meta": (torch.ones(2, device="meta"), "is on the device 'meta'"),
    "lazy": (nn.parameter.UninitializedParameter(), "is of a lazy module that has not run yet"),
    "a number": (3, "is a int, not a tensor"),
    "a dict": ({"a": torch.ones(1)}, "is a dict, not a tensor"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_oneflow_has_not_is_refused_and_nothing_written(tmp_path, kind):
    value, message = REFUSED[kind]
    with pytest.raises(ArtifactError, match=rf"'layer\.x' {message}"):
        write({"fine": torch.ones(2), "layer.x": value}, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([torch.ones(1)], "not a list"),
        (torch.ones(1), "not a Tensor"),
        ({1: torch.ones(1)}, "1 is no name"),
        ({"\ud800": torch.ones(1)}, r"'\\ud800' is no name"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, state, message):
    with pytest.raises(ArtifactError, match=message):
        write(state, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(
        ArtifactError, match=r"the folder is not empty \(it holds notes\.txt\); nothing was written"
    ):
        write({"a": torch.ones(1)}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ArtifactError, match="is a file; give a folder"):
        write({"a": torch.ones(1)}, tmp_path / "notes.txt")


def test_overwriting_replaces_the_checkpoint_and_leaves_the_rest(tmp_path):
    write({"a": torch.ones(1), "b": torch.ones(2)}, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "tensor_notes").mkdir()
    write({"a": torch.zeros(3)}, tmp_path, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        "notes.txt",
        "tensor_notes",
        "pickled_data",
        "tensor_0",
    }
    assert torch.equal(read(tmp_path)["a"], torch.zeros(3))


@pytest.mark.parametrize("at", range(6))
def test_a_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch, at):
    """The write that fails is the first, the second, … of two tensors and the pickle."""
    state, real, calls = {"a": torch.ones(2), "b": torch.ones(3)}, os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == at + 1:
            raise OSError(28, "No space left on device")
        return real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match=f"{tmp_path / 'a'}.* cannot be written: the disk is full"):
        write(state, tmp_path / "a")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    assert list(read(write(state, tmp_path / "a"))) == ["a", "b"]


def test_the_target_is_made_with_the_folders_above_it(tmp_path):
    folder = write({}, str(tmp_path / "x" / "y"))
    assert folder == Path(tmp_path / "x" / "y")
    assert read(folder) == {}
