"""An artifact gives the model back: the same bits, without the model's code, whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lianzhi import artifact, files, models, prune
from lianzhi.errors import ArtifactError, GraphError
from lianzhi.graph import TracedModule, capture
from lianzhi.graph.serialize import tensor_kinds


class Net(nn.Module):
    """What users write: a frozen layer, tied weights, buffers in and outside the state dict, a plain tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.5)
        self.up, self.down = nn.Linear(6, 6), nn.Linear(6, 6)
        self.down.weight = self.up.weight
        self.register_buffer("scale", torch.rand(6), persistent=False)
        self.shift = torch.rand(6)
        self.conv.weight.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.drop(torch.relu(self.bn(self.conv(x)))).mean((2, 3)) * self.scale + self.shift
        return self.down(torch.relu(self.up(y.view(x.shape[0], -1))))


X = torch.randn(1, 3, 8, 8)


def trained(model: nn.Module) -> nn.Module:
    """The model with statistics of some data, in eval mode."""
    model.train()
    model(torch.randn(8, 3, 8, 8))
    return model.eval()


def architecture(folder: Path) -> Any:
    return json.loads((folder / "architecture.json").read_text())


def same(one: nn.Module, other: nn.Module, *inputs: torch.Tensor) -> bool:
    with torch.no_grad():
        return torch.equal(one(*inputs), other(*inputs))


def test_a_model_comes_back_as_it_was(tmp_path):
    model = trained(Net())
    kinds, state = tensor_kinds(model), {name: value.clone() for name, value in model.state_dict().items()}
    folder = artifact.save(model, tmp_path / "a", example_inputs=X)
    loaded = artifact.load(folder)
    assert isinstance(loaded, TracedModule)
    assert architecture(folder)["kind"] == "graph"
    assert architecture(folder)["difference"] == 0
    assert not loaded.training
    for batch in (1, 2, 7):
        assert same(model, loaded, torch.randn(batch, 3, 8, 8))
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in state.items())
    assert loaded.down.weight is loaded.up.weight
    assert kinds.items() <= tensor_kinds(loaded).items()
    assert architecture(folder)["ties"] == {"down.weight": "up.weight"}
    assert "down.weight" not in files.tensor_table(folder / "model.safetensors")
    assert int(loaded.bn.num_batches_tracked) == 1


def test_the_model_that_is_saved_stays_as_it_is(tmp_path):
    model = trained(Net())
    model.train()
    model.bn.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.random.get_rng_state()
    artifact.save(model, tmp_path / "a", example_inputs=X)
    assert torch.equal(random, torch.random.get_rng_state())
    assert (model.training, model.bn.training, model.drop.training) == (True, False, True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_training_goes_on_after_loading(tmp_path):
    model = trained(Net())
    loaded = artifact.load(artifact.save(model, tmp_path / "a", example_inputs=X))
    loaded.train()
    x = torch.randn(4, 3, 8, 8)
    assert not torch.equal(loaded(x), loaded(x)), "dropout is off"
    mean = loaded.bn.running_mean.clone()
    loaded(x).sum().backward()
    assert loaded.conv.weight.grad is None
    assert loaded.up.weight.grad is not None
    assert not torch.equal(mean, loaded.bn.running_mean)
    optimizer = torch.optim.SGD([p for p in loaded.parameters() if p.requires_grad], lr=0.1)
    optimizer.step()
    again = artifact.load(artifact.save(loaded, tmp_path / "b", example_inputs=X))
    assert same(loaded.eval(), again, x)
    assert not same(model, again, x)
    assert again.down.weight is again.up.weight


USER_CODE = """
import torch
from torch import nn

class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(5, 5) for _ in range(3)])

    def forward(self, x, *, gate=None):
        for layer in self.layers:
            x = torch.tanh(layer(x)) + x
        return {"logits": x if gate is None else x * gate, "last": (x,)}
"""
LOADER = """
import importlib.util, sys, torch
assert importlib.util.find_spec("users_own_code") is None
import lianzhi
model = lianzhi.load(sys.argv[1])
from safetensors.torch import load_file, save_file
given = load_file(sys.argv[2])
with torch.no_grad():
    out = model(**given)
assert "transformers" not in sys.modules and "onnx" not in sys.modules
save_file({"logits": out["logits"], "last": out["last"][0].clone()}, sys.argv[3])
"""


def test_another_process_that_has_not_the_code(tmp_path, monkeypatch):
    home = files.make_folder(tmp_path / "home")
    (home / "users_own_code.py").write_text(USER_CODE)
    monkeypatch.syspath_prepend(str(home))
    import users_own_code  # type: ignore[import-not-found]

    model = users_own_code.Mine().eval()
    given = {"x": torch.randn(4, 5), "gate": torch.rand(4, 5)}
    folder = artifact.save(
        model, tmp_path / "a", example_inputs={name: value[:1] for name, value in given.items()}
    )
    files.write_tensors(tmp_path / "in", given)
    done = subprocess.run(
        [sys.executable, "-c", LOADER, str(folder), str(tmp_path / "in"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = files.read_tensors(tmp_path / "out")
    with torch.no_grad():
        expected = model(**given)
    assert torch.equal(found["logits"], expected["logits"])
    assert torch.equal(found["last"], expected["last"][0])


def zoo() -> nn.Module:
    return trained(models.model("resnet20"))


def test_a_pruned_model_of_the_zoo_is_one_again(tmp_path):
    image = torch.randn(1, 3, 32, 32)
    model = prune.plan(zoo(), image, ratio=0.4, criterion="l1").apply().eval()
    folder = artifact.save(model, tmp_path / "a", example_inputs=image)
    data = architecture(folder)
    assert data["kind"] == "zoo", data.get("reason")
    assert data["zoo"]["changes"]
    loaded = artifact.load(folder)
    assert type(loaded) is type(model)
    assert models.describe(loaded) == models.describe(model)
    assert same(model, loaded, torch.randn(3, 3, 32, 32))
    again = artifact.load(artifact.save(loaded, tmp_path / "b", example_inputs=image))
    assert architecture(tmp_path / "b")["zoo"] == data["zoo"]
    assert same(model, again, image)


def test_a_model_of_the_zoo_with_fewer_blocks_is_one_again(tmp_path):
    """It is loaded as what it was, so that more of its blocks can go."""
    image = torch.randn(1, 3, 32, 32)
    model = prune.plan(zoo(), image, ratio=0.5, criterion="l2", granularity="layers").apply().eval()
    folder = artifact.save(model, tmp_path / "a", example_inputs=image)
    data = architecture(folder)
    assert data["kind"] == "zoo", data.get("reason")
    assert data["zoo"]["lengths"] == {"layer2": 1, "layer3": 1}
    loaded = artifact.load(folder)
    assert [len(getattr(loaded, name)) for name in ("layer1", "layer2", "layer3")] == [3, 1, 1]
    assert same(model, loaded, torch.randn(3, 3, 32, 32))

    fewer = prune.plan(loaded, image, ratio=0.4, criterion="l2", granularity="layers").apply()
    narrow = prune.plan(fewer, image, ratio=0.4, criterion="l1").apply().eval()
    again = artifact.load(artifact.save(narrow, tmp_path / "b", example_inputs=image))
    assert architecture(tmp_path / "b")["zoo"]["lengths"] == {"layer1": 2, "layer2": 1, "layer3": 1}
    assert architecture(tmp_path / "b")["zoo"]["changes"]
    assert same(narrow, again, image)


@pytest.mark.parametrize(
    "how", ["a layer replaced", "a hook", "an attribute of another type", "a layer added"]
)
def test_a_model_of_the_zoo_that_became_another(tmp_path, how):
    model = zoo()
    name, layer = next(
        (name, child) for name, child in model.named_modules() if isinstance(child, nn.BatchNorm2d)
    )
    if how == "a layer replaced":
        model.set_submodule(name, nn.Sequential(layer, nn.Tanh()))
    elif how == "a layer added":
        layer.extra = nn.Linear(2, 2)
    elif how == "a hook":
        layer.register_forward_hook(lambda module, inputs, output: output * 2)
    else:
        layer.momentum = None
    folder = artifact.save(model, tmp_path / "a", example_inputs=torch.randn(1, 3, 32, 32))
    data = architecture(folder)
    assert data["kind"] == "graph"
    assert name in data["reason"]
    assert same(model, artifact.load(folder), torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("make", [zoo, Net])
def test_types_are_kept(tmp_path, make, dtype):
    model = make().to(dtype).eval()
    if isinstance(model, Net):
        model.shift = model.shift.to(dtype)
    x = torch.randn(2, 3, 32, 32).to(dtype)
    loaded = artifact.load(artifact.save(model, tmp_path / "a", example_inputs=x[:1]))
    assert {value.dtype for value in loaded.parameters()} == {dtype}
    assert same(model, loaded, x)


def test_what_computes_something_else_is_not_saved(tmp_path):
    class Counting(nn.Module):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return x * self.calls

    with pytest.raises(ArtifactError, match="computes something else than the model"):
        artifact.save(Counting(), tmp_path / "a", example_inputs=torch.ones(1, 2))
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_captured_is_not_saved(tmp_path):
    class Deciding(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(GraphError, match=r"test_artifact\.py:\d+"):
        artifact.save(Deciding(), tmp_path / "a", example_inputs=torch.ones(1, 2))
    with pytest.raises(GraphError, match="example_inputs"):
        artifact.save(nn.Linear(2, 2), tmp_path / "a", example_inputs="x")
    assert os.listdir(tmp_path) == []


def test_the_other_members(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\x08\x09")
    preprocess = {"size": [8, 8], "channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3}
    folder = artifact.save(
        nn.Linear(4, 2),
        tmp_path / "a",
        example_inputs=torch.zeros(1, 4),
        preprocess=preprocess,
        labels=["猫", "dog"],
        extra={
            "recipe.yaml": "a: 1\n",
            "model.onnx": tmp_path / "model.onnx",
            "report.json": {"rows": []},
            "raw": b"\0",
        },
    )
    assert files.read_json(folder / "preprocess.json") == preprocess
    assert (folder / "labels.txt").read_text("utf-8") == "猫\ndog\n"
    assert (folder / "recipe.yaml").read_text() == "a: 1\n"
    assert (folder / "model.onnx").read_bytes() == b"\x08\x09"
    assert files.read_json(folder / "report.json") == {"rows": []}
    assert artifact.load(folder)(torch.zeros(3, 4)).shape == (3, 2)
    for wrong, message in (
        ({"labels": ["a\nb"]}, "one line"),
        ({"extra": {"../x": ""}}, "not the name"),
        ({"extra": {"labels.txt": ""}}, "by save itself"),
    ):
        with pytest.raises(ArtifactError, match=message):
            artifact.save(nn.Linear(4, 2), tmp_path / "b", example_inputs=torch.zeros(1, 4), **wrong)
    assert sorted(os.listdir(tmp_path)) == ["a", "model.onnx"]


def test_example_inputs_in_the_form_that_they_had(tmp_path):
    model = nn.Embedding(5, 3)
    folder = artifact.save(model, tmp_path / "a", example_inputs=torch.ones(4, 7, dtype=torch.int64))
    assert torch.equal(artifact.example_inputs(folder), torch.zeros(1, 7, dtype=torch.int64))
    folder = artifact.save(
        nn.Bilinear(2, 3, 4), tmp_path / "b", example_inputs=(torch.ones(1, 2), torch.ones(1, 3))
    )
    one, two = artifact.example_inputs(folder)
    assert (one.shape, two.shape) == ((1, 2), (1, 3))
    assert torch.equal(one, artifact.example_inputs(folder)[0])
    assert artifact.load(folder)(one, two).shape == (1, 4)
    folder = artifact.save(nn.ReLU(), tmp_path / "c", example_inputs={"input": torch.ones(2, 2)})
    assert artifact.example_inputs(folder)["input"].shape == (1, 2)


def test_a_fixed_batch_stays_fixed(tmp_path):
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(4, 3).sum(1)

    folder = artifact.save(Fixed(), tmp_path / "a", example_inputs=torch.ones(4, 3))
    assert artifact.example_inputs(folder).shape == (4, 3)
    again = artifact.save(artifact.load(folder), tmp_path / "b", example_inputs=torch.ones(4, 3))
    assert artifact.load(again)(torch.ones(4, 3)).tolist() == [3.0] * 4


class Words(nn.Module):
    """A text model that takes any length."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 4), nn.Linear(4, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.head((self.embed(input_ids) * attention_mask[..., None]).mean(1))


def test_of_a_length_that_is_free_the_example_s_is_kept(tmp_path):
    """So that it is measured on a sentence and not on one word."""
    example = {name: torch.ones(1, 7, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    captured = capture(Words(), example, dynamic_length=True).module
    folder = artifact.save(captured, tmp_path / "a", example_inputs=example)
    inputs = architecture(folder)["inputs"]["dict"]
    assert [leaf for _, leaf in inputs] == [{"shape": [None, None], "dtype": "int64", "length": 7}] * 2
    again = artifact.example_inputs(folder)
    assert {name: tuple(value.shape) for name, value in again.items()} == dict.fromkeys(example, (1, 7))
    other = {name: torch.ones(2, 5, dtype=torch.int64) for name in example}
    assert torch.equal(artifact.load(folder)(**other), captured(**other))
