"""Which tensors `pack` prunes and shares: a model's parameters, wherever it comes from; never its buffers and constants."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import lianzhi as lz
from lianzhi.artifact.layout import own_digest
from lianzhi.codebook.sharing import share
from lianzhi.errors import ArtifactError, RecipeError
from lianzhi.files import read_json, write_json


class Causal(nn.Module):
    """Attention with all that is no parameter: a buffer, one without state, and a tensor that is a mere attribute."""

    def __init__(self):
        super().__init__()
        self.query, self.value = nn.Linear(16, 16), nn.Linear(16, 16, bias=False)
        self.frozen = nn.Parameter(torch.randn(16, 16), requires_grad=False)
        self.out = nn.Linear(16, 16, bias=False)
        self.out.weight = self.value.weight
        self.register_buffer("mask", torch.triu(torch.full((8, 8), -1e4), 1))
        self.register_buffer("places", torch.randn(8, 16), persistent=False)
        self.table = torch.randn(16, 16)

    def forward(self, x):
        x = x + self.places
        scores = self.query(x) @ (x @ self.frozen).transpose(1, 2) + self.mask
        return self.out(scores.softmax(-1) @ self.value(x)) @ self.table


PARAMETERS = ("query.weight", "value.weight", "out.weight", "frozen")
OTHERS = ("mask", "places", "table", "query.bias")


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    torch.manual_seed(0)
    model, x = Causal().eval(), torch.randn(2, 8, 16)
    folder = lz.save(model, tmp_path_factory.mktemp("pack") / "model", example_inputs=x)
    return model, x, folder


def test_a_folder_and_its_module_give_the_same_file(causal, tmp_path):
    model, x, folder = causal
    options = {"bits": 3, "sparsity": 0.5}
    lz.codebook.pack(model, tmp_path / "module.lzc", example_inputs=x, **options)
    lz.codebook.pack(folder, tmp_path / "folder.lzc", **options)
    lz.codebook.pack(lz.load(folder), tmp_path / "loaded.lzc", example_inputs=x, **options)
    assert (tmp_path / "module.lzc").read_bytes() == (tmp_path / "folder.lzc").read_bytes()
    found = lz.codebook.unpack(tmp_path / "folder.lzc")
    again = lz.codebook.unpack(tmp_path / "loaded.lzc")
    assert found.keys() == again.keys()
    assert all(torch.equal(again[name], value) for name, value in found.items())
    for name in PARAMETERS:
        assert len(found[name].unique()) <= 8
        assert int((found[name] == 0).sum()) == 128
    for name in OTHERS:
        assert torch.equal(found[name], model.get_parameter(name) if "." in name else getattr(model, name))
    assert found["out.weight"] is found["value.weight"]


def test_a_pruned_folder_is_causal_still(causal, tmp_path):
    _, x, folder = causal
    lz.codebook.pack(folder, tmp_path / "m.lzc", sparsity=0.7)
    loaded = lz.load(tmp_path / "m.lzc")
    later = x.clone()
    later[:, 4:] += 1
    with torch.no_grad():
        assert torch.equal(loaded(x)[:, :4], loaded(later)[:, :4])


def test_a_model_of_the_zoo_from_its_folder(tmp_path):
    model = lz.model("lenet5", image_size=20, in_channels=3).eval()
    lz.save(model, tmp_path / "model", example_inputs=torch.zeros(1, 3, 20, 20))
    lz.codebook.pack(model, tmp_path / "module.lzc", bits=3)
    lz.codebook.pack(tmp_path / "model", tmp_path / "folder.lzc", bits=3)
    assert (tmp_path / "module.lzc").read_bytes() == (tmp_path / "folder.lzc").read_bytes()


def test_a_pattern_of_what_is_no_parameter_fits_no_weight(causal, tmp_path):
    model, x, folder = causal
    for source, options in ((folder, {}), (model, {"example_inputs": x}), (model, {})):
        for name in ("mask", "table") if options or source is folder else ("mask",):
            with pytest.raises(RecipeError, match=f"'{name}' fits no weight"):
                lz.codebook.pack(source, tmp_path / "m.lzc", bits={name: 3}, **options)
    assert not list(tmp_path.iterdir())


def test_a_module_whose_weights_are_shared_is_packed_by_its_plain_names(tmp_path):
    model = nn.Sequential(nn.Linear(8, 8))
    model.register_buffer("mask", torch.randn(8, 8))
    share(model, 4)
    lz.codebook.pack(model, tmp_path / "a.lzc", bits={"0.weight": 2})
    found = lz.codebook.unpack(tmp_path / "a.lzc")
    assert len(found["0.weight"].unique()) <= 4
    assert torch.equal(found["mask"], model.mask)


def test_tensors_alone_do_not_say_what_they_are_and_the_note_names_what_was_changed(causal, tmp_path):
    model, x, folder = causal
    save_file({"mask": model.mask, "w.weight": torch.randn(4, 4)}, tmp_path / "w.safetensors")
    for source in (tmp_path / "w.safetensors", {"mask": model.mask, "w.weight": torch.randn(4, 4)}):
        note = lz.codebook.pack(source, tmp_path / "a.lzc", sparsity=0.5).note
        assert "buffers" in note
        assert "'mask', 'w.weight'" in note
        note = lz.codebook.pack(source, tmp_path / "a.lzc", bits={"w": 3}).note
        assert "'mask'" not in note
        assert "'w.weight'" in note
        assert not lz.codebook.pack(source, tmp_path / "a.lzc").note
    many = {f"{index}.weight": torch.randn(2, 2) for index in range(20)} | {"z": torch.ones(2, 2)}
    note = lz.codebook.pack(many, tmp_path / "a.lzc", sparsity=0.5).note
    assert "21 tensors" in note
    assert "'z', '0.weight'" in note  # what is no layer's weight by its name stands first
    assert "and 13 more" in note
    assert not lz.codebook.pack(folder, tmp_path / "a.lzc", sparsity=0.5).note
    assert not lz.codebook.pack(model, tmp_path / "a.lzc", sparsity=0.5, example_inputs=x).note


@pytest.mark.parametrize("options", [{"bits": 3}, {"sparsity": 0.5}])
def test_a_note_says_that_nothing_was_pruned_or_shared(tmp_path, options):
    for source in ({"a": torch.randn(5), "steps": torch.ones(2, 2).int()}, nn.BatchNorm1d(3)):
        assert "nothing was pruned or shared" in lz.codebook.pack(source, tmp_path / "a.lzc", **options).note
        assert "nothing was" not in lz.codebook.pack(source, tmp_path / "a.lzc").note


@pytest.mark.parametrize("kinds", [None, [], {"query.weight": "parameter"}])
def test_a_folder_that_does_not_say_what_its_tensors_are_is_refused(causal, tmp_path, kinds):
    model, x, _ = causal
    folder = lz.save(model, tmp_path / "model", example_inputs=x)
    architecture = read_json(folder / "architecture.json")
    architecture["graph"]["tensors"] = kinds
    write_json(folder / "architecture.json", {**architecture, "digest": own_digest(architecture)})
    with pytest.raises(ArtifactError, match="does not say which of its tensors are parameters"):
        lz.codebook.pack(folder, tmp_path / "m.lzc", bits=3)
    assert not (tmp_path / "m.lzc").exists()
