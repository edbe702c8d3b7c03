"""Weights files: what fits is loaded, what does not is named, and nothing in a file is run."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from lianzhi import models
from lianzhi.errors import ArtifactError


def small(**config) -> nn.Module:
    return models.model("lenet5_classic", **config)


def write(folder: Path, kind: str, state: dict) -> Path:
    path = folder / f"weights{kind}"
    if kind == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def same(model: nn.Module, state: dict) -> bool:
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("kind", [".safetensors", ".pt", ".pth"])
def test_there_and_back(tmp_path, kind):
    state = small().state_dict()
    assert same(small(weights=write(tmp_path, kind, state)), state)
    assert same(small(weights=str(tmp_path / f"weights{kind}")), state)


@pytest.mark.parametrize("kind", [".safetensors", ".pth"])
def test_the_prefix_of_parallel_training_is_taken_away(tmp_path, kind):
    state = small().state_dict()
    path = write(tmp_path, kind, {f"module.{key}": value for key, value in state.items()})
    assert same(small(weights=path), state)


@pytest.mark.parametrize("name", ["state_dict", "model"])
def test_a_state_dict_inside_a_checkpoint(tmp_path, name):
    state = small().state_dict()
    path = write(tmp_path, ".pt", {"epoch": 3, name: state, "note": "best"})
    assert same(small(weights=path), state)


def test_files_from_before_batch_norm_counted(tmp_path):
    state = {
        key: value for key, value in models.model("resnet20").state_dict().items() if "num_batches" not in key
    }
    model = models.model("resnet20", weights=write(tmp_path, ".safetensors", state))
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())


def test_half_precision_weights_become_float32(tmp_path):
    state = {key: value.half() for key, value in small().state_dict().items()}
    model = small(weights=write(tmp_path, ".safetensors", state))
    assert all(value.dtype == torch.float32 for value in model.parameters())
    assert torch.equal(model.fc1.weight, state["fc1.weight"].float())


def refused(tmp_path: Path, state: dict, **config) -> str:
    model = small(**config)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    path = write(tmp_path, ".safetensors", state)
    with pytest.raises(ArtifactError) as error:
        models.load_weights(model, path)
    assert same(model, before), "a file that was refused must not change the model"
    assert str(path) in str(error.value)
    assert "lenet5_classic" in str(error.value)
    return str(error.value)


def test_missing_and_extra_keys_are_named(tmp_path):
    state = small().state_dict()
    state["fc9.weight"] = state.pop("fc2.weight")
    message = refused(tmp_path, state)
    assert "missing 'fc2.weight'" in message
    assert "not in the model: 'fc9.weight'" in message


def test_many_keys_are_shortened(tmp_path):
    message = refused(tmp_path, {"fc1.bias": torch.zeros(120)})
    assert "'conv1.weight', 'conv1.bias', 'conv2.weight', 'conv2.bias' and 5 more" in message


def test_shapes_are_named(tmp_path):
    state = small().state_dict()
    state["conv2.weight"] = torch.zeros(16, 6, 3, 3)
    message = refused(tmp_path, state)
    assert "'conv2.weight' is [16, 6, 3, 3] and should be [16, 6, 5, 5]" in message
    assert "num_classes" not in message


def test_another_number_of_classes_says_the_fix(tmp_path):
    message = refused(tmp_path, small(num_classes=100).state_dict())
    assert "'fc3.weight' is [100, 84] and should be [10, 84]" in message
    assert "num_classes=100" in message
    assert "replace its layer 'fc3'" in message


def test_integers_are_no_weights(tmp_path):
    state = small().state_dict()
    state["fc1.weight"] = torch.zeros_like(state["fc1.weight"], dtype=torch.int8)
    assert "'fc1.weight' is torch.int8 and should be torch.float32" in refused(tmp_path, state)


def test_inceptions_auxiliary_head_says_the_fix(tmp_path):
    with torch.device("meta"):
        shapes = {
            key: value.shape for key, value in models.model("inception_v3", aux=True).state_dict().items()
        }
        model = models.model("inception_v3")
    names = {
        key: torch.zeros(shape, dtype=torch.int64 if not shape else None) for key, shape in shapes.items()
    }
    with pytest.raises(ArtifactError, match="make the model with aux=True"):
        models.load_weights(model, write(tmp_path, ".safetensors", names))


def test_a_module_of_ones_own(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2))
    path = write(tmp_path, ".pt", {"0.weight": torch.ones(2, 3), "0.bias": torch.ones(2)})
    models.load_weights(model, path)
    assert torch.equal(model[0].weight, torch.ones(2, 3))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.safetensors", None, "no such weights file"),
        ("weights.onnx", b"x", "not read from '.onnx'"),
        ("weights.pt", b"", "damaged"),
        ("weights.pth", b"not a checkpoint", "not a file of tensors alone"),
        ("weights.safetensors", b"\x00" * 4, "damaged"),
    ],
)
def test_files_that_are_none(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=message) as error:
        models.read_weights(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


def test_a_folder_is_no_weights_file(tmp_path):
    with pytest.raises(ArtifactError, match="is a folder"):
        models.read_weights(tmp_path)


def test_a_cut_checkpoint_is_damaged(tmp_path):
    path = write(tmp_path, ".pt", small().state_dict())
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ArtifactError, match="damaged"):
        models.read_weights(path)


class Attack:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 1 << 20), bit=st.integers(0, 7), cut=st.booleans())
def test_damage_is_refused_or_read_and_never_anything_else(damaged_file, position, bit, cut):
    path, content = damaged_file
    broken = bytearray(content)
    position %= len(broken)
    broken[position] ^= 1 << bit
    path.write_bytes(broken[:position] if cut else broken)
    try:
        values, refusal = models.read_weights(path).values(), str(path)
    except ArtifactError as error:
        values, refusal = (), str(error)
    assert all(isinstance(value, torch.Tensor) for value in values)
    assert str(path) in refusal


@pytest.fixture(scope="module")
def damaged_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged") / "weights.pt"
    torch.save({"a": torch.ones(3), "b.weight": torch.zeros(2, 2)}, path)
    return path, path.read_bytes()


@pytest.mark.parametrize("how", ["in a checkpoint", "a bare pickle"])
def test_a_pickle_is_not_run(tmp_path, how):
    mark, path = tmp_path / "ran", tmp_path / "weights.pt"
    content = {"conv1.weight": torch.zeros(1), "extra": Attack(mark)}
    if how == "in a checkpoint":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ArtifactError, match="could run code and was not opened"):
        models.read_weights(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "holds a list, not a state dict"),
        ({"net": {"a": torch.zeros(1)}}, "'net' is no tensor"),
        ({"state_dict": {"a": 1, "b": 2}}, "'a', 'b' are no tensor"),
    ],
)
def test_other_contents_are_named(tmp_path, content, message):
    with pytest.raises(ArtifactError, match=message):
        models.read_weights(write(tmp_path, ".pt", content))
