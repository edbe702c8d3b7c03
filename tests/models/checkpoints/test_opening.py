"""Which kind of checkpoint lies somewhere, what of it is a weight, and what is said of the rest."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import lianzhi as lz
from lianzhi import models
from lianzhi.deploy import oneflow
from lianzhi.errors import ArtifactError, RecipeError
from lianzhi.models.checkpoints.kinds import kind_of
from lianzhi.models.checkpoints.opening import open_checkpoint
from lianzhi.models.checkpoints.slots import no_weights
from lianzhi.models.weights import read_weights

REAL = Path(__file__).parent / "data" / "tensorflow"
ONE_FILE = Path(__file__).parent / "data" / "oneflow" / "one_file.pt"
STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}


@pytest.fixture
def places(tmp_path) -> dict[str, Path]:
    """Checkpoints of every kind, by what they are."""
    oneflow.write(STATE, tmp_path / "flow")
    torch.save(STATE, tmp_path / "m.pth")
    torch.save({"epoch": 1, "state_dict": STATE}, tmp_path / "lightning.ckpt")
    save_file(STATE, tmp_path / "m.safetensors")
    (tmp_path / "hub").mkdir()
    torch.save(STATE, tmp_path / "hub" / "pytorch_model.bin")
    saved = tmp_path / "saved" / "variables"
    saved.mkdir(parents=True)
    (tmp_path / "saved" / "saved_model.pb").touch()
    for file in REAL.glob("objects-1.*"):
        shutil.copy(file, saved / file.name.replace("objects-1", "variables"))
    several = tmp_path / "several"
    several.mkdir()
    for file in (*REAL.glob("bert.ckpt.*"), *REAL.glob("sharded.ckpt.*")):
        shutil.copy(file, several)
    (several / "checkpoint").write_text(
        'model_checkpoint_path: "/gone/sharded.ckpt"\nall_model_checkpoint_paths: "x"\n'
    )
    return {path.name: path for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("flow", "oneflow"),
        ("m.pth", "pytorch"),
        ("m.safetensors", "pytorch"),
        ("lightning.ckpt", "pytorch"),
        ("hub", "pytorch"),
        ("saved", "tensorflow"),
        ("several", "tensorflow"),
    ],
)
def test_kinds(places, name, kind):
    assert kind_of(places[name]) == kind
    found = open_checkpoint(places[name])
    assert found.kind == kind
    assert open_checkpoint(places[name], kind).tensors.keys() == found.tensors.keys()
    if kind != "tensorflow":
        assert all(torch.equal(found.tensors[key], value) for key, value in STATE.items())


def test_a_prefix_of_tensorflow():
    assert kind_of(REAL / "bert.ckpt") == "tensorflow"
    assert kind_of(REAL / "bert.ckpt.index") == "tensorflow"


def test_the_file_checkpoint_names_the_last_of_several(places):
    assert set(open_checkpoint(places["several"]).tensors) == {"a", "b/c", "b/d"}
    (places["several"] / "checkpoint").unlink()
    with pytest.raises(
        ArtifactError, match=r"holds 2 checkpoints \('bert\.ckpt', 'sharded\.ckpt'\); give one"
    ):
        open_checkpoint(places["several"])


def test_what_is_no_weight_is_left_out_with_the_reason():
    found = open_checkpoint(REAL / "bert.ckpt")
    kernel = "bert/pooler/dense/kernel"
    assert found.left_out == {
        f"{kernel}/adam_m": f"kept by the optimizer for '{kernel}'",
        f"{kernel}/adam_v": f"kept by the optimizer for '{kernel}'",
        "global_step": "a counter of training steps",
    }
    assert len(found.tensors) == 45
    assert found.sources["bert.pooler.dense.weight"] == kernel


def test_objects_of_tensorflow_2(places):
    found = open_checkpoint(places["saved"])
    assert list(found.tensors) == ["layer/.ATTRIBUTES/VARIABLE_VALUE"]
    assert found.left_out == {
        "_CHECKPOINTABLE_OBJECT_GRAPH": "text",
        "optimizer/iterations/.ATTRIBUTES/VARIABLE_VALUE": "of the optimizer",
        "optimizer/momentum/.ATTRIBUTES/VARIABLE_VALUE": "of the optimizer",
        "save_counter/.ATTRIBUTES/VARIABLE_VALUE": "a counter of training steps",
    }


names = st.lists(st.text("ab/", min_size=1, max_size=6), unique=True, max_size=8)


@given(names)
def test_slots_lie_below_a_variable(known):
    found = no_weights(known)
    assert found.keys() == {name for name in known if name.rpartition("/")[0] in known}


def test_an_optimizer_of_oneflow_is_left_out(tmp_path):
    oneflow.write({"w": torch.ones(2), "w-m": torch.zeros(2), "w-v": torch.zeros(2)}, tmp_path / "new")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "snapshot_done").touch()
    for name, place in {"w": "tensor_0", "w-m": "tensor_1", "w-v": "tensor_2"}.items():
        os.rename(tmp_path / "new" / place, snapshot / name)
    found = open_checkpoint(snapshot)
    assert list(found.tensors) == ["w"]
    assert set(found.left_out) == {"w-m", "w-v"}


def test_nothing_but_an_optimizer(tmp_path):
    import numpy as np
    import sorted_tables as tables

    stem = tables.write(tmp_path, {"global_step": np.float32(1)})
    with pytest.raises(ArtifactError, match="holds no weights, only 'global_step'; give another checkpoint"):
        open_checkpoint(stem)


def test_what_is_no_checkpoint(tmp_path):
    (tmp_path / "keras.h5").write_bytes(b"\x89HDF")
    (tmp_path / "folder").mkdir()
    for name, message in {
        "gone": "no such weights file or checkpoint",
        "keras.h5": "not read from '.h5' files; give a OneFlow",
        "folder": "is a folder without a checkpoint",
    }.items():
        with pytest.raises(ArtifactError, match=message) as error:
            open_checkpoint(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
    with pytest.raises(RecipeError, match="'tensorflwo' is no kind of checkpoint; did you mean 'tensorflow'"):
        open_checkpoint(tmp_path, "tensorflwo")


@pytest.mark.parametrize("kind", [None, "tensorflow"])
def test_the_first_format_of_tensorflow_says_how_it_becomes_the_second(kind):
    with pytest.raises(ArtifactError, match=r"first format \(V1\).*Saver\(\)\.save\(session, PREFIX\)"):
        open_checkpoint(REAL / "old.ckpt", kind)


def test_a_kind_that_it_is_not(places):
    for name, kind in {"m.pth": "oneflow", "flow": "pytorch", "hub": "tensorflow"}.items():
        with pytest.raises(ArtifactError) as error:
            open_checkpoint(places[name], kind)
        assert str(places[name]) in str(error.value)


def test_the_zoo_takes_checkpoints(tmp_path):
    state = lz.model("resnet50").state_dict()
    oneflow.write(state, tmp_path / "flow")
    model = lz.model("resnet50", weights=tmp_path / "flow")
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    with pytest.raises(ArtifactError, match="does not fit the model 'resnet20'"):
        models.load_weights(lz.model("resnet20"), tmp_path / "flow")


def test_a_file_of_oneflow_is_told_from_one_of_pytorch_by_its_content():
    assert open_checkpoint(ONE_FILE).kind == "oneflow"
    assert open_checkpoint(ONE_FILE, "oneflow").tensors.keys() == {"weight", "bias", "spread"}
    with pytest.raises(ArtifactError, match="is not a file of tensors alone"):
        open_checkpoint(ONE_FILE, "pytorch")


@pytest.mark.parametrize("name", ["m.pt", "m.safetensors", "m"])
def test_what_is_no_plain_file_is_refused_without_waiting(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ArtifactError, match=r"not a plain file|weights are not read from"):
        open_checkpoint(tmp_path / name)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin", "w.ckpt"])
def test_files_of_pytorch_before_1_6_are_pytorch_s(tmp_path, name):
    """Several pickles one after another, of which the third has a 'protocol_version', as a file of OneFlow has."""
    state = {"weight": torch.randn(3, 2), "bias": torch.arange(3.0)}
    torch.save(state, tmp_path / name, _use_new_zipfile_serialization=False)
    assert kind_of(tmp_path / name) == "pytorch"
    read = read_weights(tmp_path / name)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], value) for key, value in state.items())
