"""Checkpoints that the real OneFlow 0.9.0 wrote (make_oneflow.py), read without it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import lianzhi as lz
from lianzhi.errors import ArtifactError
from lianzhi.models.checkpoints import is_oneflow, read_oneflow
from lianzhi.models.checkpoints.oneflow import read_model

DATA = Path(__file__).parent / "data" / "oneflow"
STATE_DICTS = [
    "module",
    "checkpoint",
    "types",
    "names",
    "global",
    "graph",
    "graph_state",
    "snapshot",
    "nested",
    "one_file",
    "one_file.pt",
]


def expected(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as saved:
        return dict(saved)


@pytest.mark.parametrize("name", STATE_DICTS)
def test_every_value_is_what_oneflow_says(name):
    numbers, tensors = expected(name), read_oneflow(DATA / name)
    assert sorted(tensors) == sorted(numbers)
    for key, tensor in tensors.items():
        value = tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
        assert value.dtype == numbers[key].dtype
        assert value.shape == numbers[key].shape
        assert value.tobytes() == numbers[key].tobytes()


@pytest.mark.parametrize("name", ["types", "one_file"])
def test_types_are_kept(name):
    tensors = read_oneflow(DATA / name)
    for kind in ("float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool"):
        assert tensors[kind].dtype == getattr(torch, kind)
    assert tensors["shape ()"].shape == ()
    assert tensors["shape (2, 0, 3)"].shape == (2, 0, 3)


def test_names_keep_their_order_and_ties():
    tensors = read_oneflow(DATA / "names")
    assert list(tensors) == ["a/b.weight", "同名 ✓", "", "bias"]
    assert tensors["a/b.weight"] is tensors["同名 ✓"]
    assert tensors["a/b.weight"] is not tensors["bias"]


def test_one_file_keeps_ties_and_rows():
    tensors = read_oneflow(DATA / "one_file")
    assert tensors["weight"] is tensors["tied"]
    assert tensors["turned"].is_contiguous()  # by columns in the file
    assert read_model(DATA / "one_file.pt")[1] == {"epoch": "beside 'model'", "history": "beside 'model'"}


def test_one_file_of_numpy_2_is_read(tmp_path):
    """Its function lies in another module."""
    old, new = b"\x8c\x15numpy.core.multiarray", b"\x8c\x16numpy._core.multiarray"
    data = (DATA / "one_file").read_bytes()
    assert data.count(old) == 1
    (tmp_path / "model").write_bytes(data.replace(old, new))
    assert read_oneflow(tmp_path / "model").keys() == read_oneflow(DATA / "one_file").keys()


def test_a_folders_pickle_alone_is_no_checkpoint():
    with pytest.raises(ArtifactError, match=r"the data of 'conv.weight' lie beside it; give its folder"):
        read_oneflow(DATA / "module" / "pickled_data")


def test_a_module_takes_them():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 2, 3, bias=False)
            self.bn = torch.nn.BatchNorm2d(2)
            self.fc = torch.nn.Linear(2, 3)

    net = Net()
    assert not net.load_state_dict(read_oneflow(DATA / "module")).missing_keys
    assert net.bn.num_batches_tracked == 1
    assert torch.equal(net.conv.weight, torch.from_numpy(expected("module")["conv.weight"]))


def test_what_is_read_is_in_memory_of_its_own(tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(DATA / "module", folder)
    tensors = read_oneflow(folder)
    for value in tensors.values():
        value.zero_()
    again = read_oneflow(folder)
    assert np.array_equal(again["fc.weight"].numpy(), expected("module")["fc.weight"])
    shutil.rmtree(folder)
    assert all(not bool(value.any()) for value in tensors.values())


def test_a_checkpoint_of_07_is_read(tmp_path):
    """Its classes lay in another module, and a tensor on several devices was called consistent."""
    pickled = (
        b"\x80\x03}(X\x10\x00\x00\x00protocol_versionK\x01X\x04\x00\x00\x00data}X\x01\x00\x00\x00wq\x00"
        b"coneflow._oneflow_internal.nn\nParameter\n)\x81}X\x04\x00\x00\x00pathX\x13\x00\x00\x00consistent_tensor_1sbsu."
    )
    (tmp_path / "pickled_data").write_bytes(pickled)
    shutil.copytree(DATA / "snapshot" / "dense-v", tmp_path / "consistent_tensor_1")
    assert np.array_equal(read_oneflow(tmp_path)["w"].numpy(), expected("snapshot")["dense-v"])


def test_folders_of_checkpoints_are_known():
    assert all(is_oneflow(DATA / name) for name in STATE_DICTS)
    assert not is_oneflow(DATA)
    assert not is_oneflow(DATA / "module.npz")
    assert not is_oneflow(DATA / "nothing")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("single", "holds a single tensor, not a state dict"),
        ("optimizer", "'state', 'param_groups' are no tensor; give a state dict"),
        ("module/tensor_2", "it has neither 'pickled_data' nor folders with 'meta' and 'out'"),
        ("", "give the folder of one: 'checkpoint', 'global', 'graph_state', 'module' and 4 more in it"),
        ("module.npz", "is no file that oneflow.save wrote"),
        ("nothing", "is not there"),
    ],
)
def test_what_is_no_state_dict_is_named(name, message):
    found = next((DATA / "module").glob("tensor_*")) if "tensor" in name else DATA / name
    with pytest.raises(ArtifactError) as error:
        lz.deploy.oneflow.read(found)
    assert message in str(error.value)
    assert str(found) in str(error.value)


def test_the_model_in_a_graphs_state_is_taken_only_where_all_else_is_its_optimizers(tmp_path):
    """The same pickle, whose `net.bias-m` has become another name."""
    folder = tmp_path / "graph_state"
    shutil.copytree(DATA / "graph_state", folder)
    pickled = (folder / "pickled_data").read_bytes()
    assert b"net.bias-m" in pickled
    (folder / "pickled_data").write_bytes(pickled.replace(b"net.bias-m", b"net.bias-x"))
    with pytest.raises(ArtifactError, match="'net' is no tensor"):
        read_oneflow(folder)


def test_what_is_left_out_is_told():
    assert read_model(DATA / "checkpoint")[1] == dict.fromkeys(
        ["optimizer", "epoch", "rate", "note", "none"], "beside 'model'"
    )
    assert {"net.weight-m", "net.bias-v", "System-Train-TrainStep"} < read_model(DATA / "graph_state")[
        1
    ].keys()
    assert set(read_model(DATA / "nested")[1]) == {"bert/layer_0/weight-m"}
    assert read_model(DATA / "module")[1] == {}


def test_variables_of_an_optimizer_are_those_beside_a_variable():
    names = {path.name for path in (DATA / "snapshot").iterdir()}
    assert {"conv1-weight-m", "conv1-weight-v", "System-Train-TrainStep-job", "dense-v"} < names
    assert sorted(read_oneflow(DATA / "snapshot")) == ["conv1-weight", "dense-v"]
