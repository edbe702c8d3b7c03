"""What `pack` is given: tensors made on access, without memory, in computed weights, of half models, from unpacked files."""

import gc
import json
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from accelerate.utils import load_state_dict
from safetensors.torch import load_file, save_file
from torch import nn
from torch._subclasses import FakeTensorMode

import lianzhi as lz
from lianzhi import codebook, files
from lianzhi.cli import main
from lianzhi.codebook.bits import bits_by_name
from lianzhi.codebook.rated import rated
from lianzhi.codebook.sharing import bake, share
from lianzhi.errors import ArtifactError, GraphError, RecipeError


class MadeOnAccess(Mapping):
    """Each access gives a new tensor, whose memory is the next one's as soon as it is let go."""

    def __len__(self):
        return 8

    def __iter__(self):
        return (f"t{index}" for index in range(8))

    def __getitem__(self, name):
        return torch.full((100, 100), float(name[1:]))


def test_tensors_that_are_made_on_access_are_not_taken_for_one(tmp_path):
    codebook.pack(MadeOnAccess(), tmp_path / "a.lzc")
    found = codebook.unpack(tmp_path / "a.lzc")
    assert [float(found[name][0, 0]) for name in found] == list(range(8))


def test_a_tensor_without_memory_is_refused_by_name(tmp_path):
    with FakeTensorMode():
        fake = torch.ones(2, 2)
    with (
        pytest.warns(UserWarning, match="data pointer"),
        pytest.raises(ArtifactError, match="'w' is a FakeTensor without memory"),
    ):
        codebook.pack({"w": fake}, tmp_path / "a.lzc")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"bits": 2}, {"rate": 2.0}, {"sparsity": 0.5}])
@pytest.mark.parametrize("kind", ["weight_norm", "old weight_norm", "spectral_norm"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_a_weight_is_computed_of_is_neither_pruned_nor_shared(kind, options, tmp_path):
    norms = {
        "weight_norm": nn.utils.parametrizations.weight_norm,
        "old weight_norm": nn.utils.weight_norm,
        "spectral_norm": nn.utils.spectral_norm,
    }
    model = norms[kind](nn.Linear(20, 30)).eval()
    for source, more in (
        (model, {"example_inputs": torch.ones(1, 20)}),
        (model, {}),
        (model.state_dict(), {}),
    ):
        with pytest.raises(GraphError, match="computes a weight of"):
            codebook.pack(source, tmp_path / "a.lzc", **options, **more)
    assert not list(tmp_path.iterdir())
    codebook.pack(model, tmp_path / "a.lzc")
    assert all(
        torch.equal(value, model.state_dict()[name]) for name, value in codebook.read(tmp_path / "a.lzc")
    )


def test_matrices_that_are_only_called_as_weight_norm_calls_its_own_are_shared(tmp_path):
    state = {"w_g": torch.randn(20, 30), "w_v": torch.randn(20, 30)}
    codebook.pack(state, tmp_path / "a.lzc", bits=2)
    assert all(len(value.unique()) <= 4 for value in codebook.unpack(tmp_path / "a.lzc").values())


def test_a_rate_may_be_a_number_of_numpy():
    weights = torch.randn(1000)
    assert rated(weights, np.float64(2.0)).entropy == rated(weights, 2.0).entropy


class TwoNames(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.randn(8, 8))
        self.b = self.a

    def forward(self, x):
        return x @ self.a @ self.b


@pytest.mark.parametrize("moving", [False, True])
def test_a_parameter_of_two_names_in_one_module_is_shared_under_both(moving):
    model, x = TwoNames(), torch.randn(2, 8)
    assert share(model, 2, moving=moving) == {"a": 2}
    assert len(list(model.parameters())) == 1
    assert torch.equal(model(x), x @ model.a @ model.a)
    model(x).sum().backward()
    bake(model)
    assert model.a is model.b
    assert len(model.a.unique()) <= 3


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.double])
def test_a_model_of_the_zoo_of_another_type_is_packed_with_its_architecture(dtype, tmp_path):
    model = lz.model("lenet5").to(dtype).eval()
    codebook.pack(model, tmp_path / "a.lzc")
    image = torch.rand(1, 1, 28, 28).to(dtype)
    assert torch.equal(lz.load(tmp_path / "a.lzc")(image), model(image))


def test_a_model_of_the_zoo_that_takes_other_images_now_is_packed_as_tensors_and_says_so(tmp_path):
    model = lz.model("resnet20")
    model.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
    assert "tensors alone" in codebook.pack(model, tmp_path / "a.lzc").note
    with pytest.raises(ArtifactError, match="example_inputs"):
        lz.load(tmp_path / "a.lzc")
    codebook.pack(model, tmp_path / "a.lzc", example_inputs=torch.zeros(1, 1, 32, 32))
    assert lz.load(tmp_path / "a.lzc").conv1.in_channels == 1


def test_example_inputs_of_tensors_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="give the module itself"):
        codebook.pack({"a": torch.ones(2)}, tmp_path / "a.lzc", example_inputs=torch.ones(1))


def test_a_saved_module_leaves_no_copy_of_itself_behind(tmp_path):
    model = nn.Sequential(nn.Linear(123, 457), nn.ReLU())
    gc.collect()
    gc.disable()
    try:
        lz.save(model, tmp_path / "m", example_inputs=torch.zeros(1, 123))
        left = [
            item
            for item in gc.get_objects()
            if type(item) in (torch.Tensor, nn.Parameter) and item.shape == (457, 123) and not item.is_meta
        ]
    finally:
        gc.enable()
    assert {item.data_ptr() for item in left} == {model[0].weight.data_ptr()}


def test_a_safetensors_file_of_a_packed_one_is_packed_into_the_same_file(tmp_path, capsys):
    weight = torch.randn(100, 30)
    tensors = {"table": weight, "norm": torch.ones(3), "head": weight, "a": torch.arange(3)}
    codebook.pack(tensors, tmp_path / "a.lzc", bits=4)
    again = [tmp_path / "a.safetensors", tmp_path / "b.lzc"]
    assert main(["unpack", str(tmp_path / "a.lzc"), "-o", str(again[0])]) == 0
    assert main(["pack", str(again[0]), "-o", str(again[1])]) == 0
    capsys.readouterr()
    assert again[1].read_bytes() == (tmp_path / "a.lzc").read_bytes()
    before, after = (codebook.unpack(file) for file in (tmp_path / "a.lzc", again[1]))
    assert after["head"] is after["table"]
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert load_file(again[0]).keys() == tensors.keys()
    changed = files.read_tensors(again[0])
    changed["head"][0] += 1  # one that was changed since is no longer the other
    files.write_tensors(again[0], changed, owners={"table": "table", "head": "table"})
    codebook.pack(again[0], tmp_path / "c.lzc")
    assert torch.equal(codebook.unpack(tmp_path / "c.lzc")["head"], changed["head"])


@pytest.mark.parametrize("owners", [{"b": 1}, {"b": ["a"]}, ["a", "b"]])
def test_owners_that_are_no_names_are_refused(owners, tmp_path):
    file, metadata = tmp_path / "a.safetensors", {"format": "pt", "lianzhi.owners": json.dumps(owners)}
    save_file({"a": torch.ones(2), "b": torch.ones(2)}, file, metadata)
    with pytest.raises(ArtifactError, match=r"lianzhi\.owners"):
        codebook.pack(file, tmp_path / "a.lzc")


@pytest.mark.parametrize("owners", [{"gone": "gone", "b": "gone"}, {"b": "a"}, {"b": "a", "a": "b"}])
def test_owners_of_a_file_that_was_changed_since_are_left_out(owners, tmp_path):
    tensors = {"a": torch.zeros(2), "b": torch.ones(2)}
    file = files.write_tensors(tmp_path / "a.safetensors", tensors, owners=owners)
    codebook.pack(file, tmp_path / "a.lzc")
    found = codebook.unpack(tmp_path / "a.lzc")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_other_libraries_read_what_is_unpacked(tmp_path, capsys):
    codebook.pack({"b": torch.ones(2), "a": torch.zeros(3)}, tmp_path / "a.lzc")
    assert main(["unpack", str(tmp_path / "a.lzc"), "-o", str(tmp_path / "a.safetensors")]) == 0
    capsys.readouterr()
    assert load_state_dict(str(tmp_path / "a.safetensors")).keys() == {"a", "b"}


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fnuz, torch.float8_e5m2fnuz])
def test_every_type_that_safetensors_reads_is_packed(dtype, tmp_path):
    tensor = torch.arange(256, dtype=torch.uint8).view(dtype)
    codebook.pack({"a": tensor}, tmp_path / "a.lzc")
    found = codebook.unpack(tmp_path / "a.lzc")["a"]
    assert found.dtype == dtype
    assert torch.equal(found.view(torch.uint8), tensor.view(torch.uint8))


def test_patterns_that_can_have_no_effect_are_refused():
    with pytest.raises(RecipeError, match=r"'conv\*' stands behind '\*'"):
        bits_by_name(["conv.weight"], {"*": 3, "conv*": 8})
    with pytest.raises(RecipeError, match="no pattern is given"):
        bits_by_name(["conv.weight"], {})
    with pytest.raises(RecipeError, match="true and false are no numbers"):
        lz.ShareWeights(bits={"*": True})
