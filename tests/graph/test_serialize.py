"""A graph as JSON and back: the same bits, and nothing that a hostile file can smuggle in."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lianzhi.errors import ArtifactError
from lianzhi.graph import TracedModule, capture, get_tensor
from lianzhi.graph.allowed_ops import ATEN
from lianzhi.graph.serialize import from_json, tensor_kinds, to_json
from lianzhi.graph.structure import describe, spec_of, walk
from lianzhi.graph.values import decode, encode


class Small(nn.Module):
    """Convolution, BatchNorm, several outputs, a constant, a size, a buffer outside the state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.drop = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.head = nn.Linear(4, 4)
        self.register_buffer("scale", torch.full((4,), 2.0), persistent=False)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        y = F.relu(self.bn(self.conv(x)))
        flat = self.drop(y.mean((2, 3))).view(x.shape[0], -1) * self.scale + torch.tensor(
            [1.0, 2.0, 3.0, 4.0]
        )
        left, right = self.head(flat).chunk(2, dim=1)
        return {"both": (left, right.clamp(min=-math.inf)), "features": [y.to(torch.float64)], "none": None}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        x = self.embed(ids) * math.sqrt(8)
        if mask is not None:
            x = x.masked_fill(mask.unsqueeze(-1), 0.0)
        return self.head(self.norm(x + self.attention(x, x, x)[0]))


class Windows(nn.Module):
    """Sizes that are computed, rolled and partitioned windows, relative positions."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.table = nn.Linear(8, 24), nn.Parameter(torch.randn(49, 2))
        grid = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")).flatten(1)
        offset = (grid[:, :, None] - grid[:, None, :]).permute(1, 2, 0) + 3
        self.register_buffer("index", offset[..., 0] * 7 + offset[..., 1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        x = torch.roll(x.permute(0, 2, 3, 1), (-2, -2), (1, 2))
        x = (
            x.reshape(batch, height // 4, 4, width // 4, 4, channels)
            .transpose(2, 3)
            .reshape(-1, 16, channels)
        )
        q, k, v = self.qkv(x).reshape(-1, 16, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q * 0.5 @ k.transpose(-2, -1) + self.table[self.index.flatten()].view(16, 16, 2).permute(
            2, 0, 1
        )
        return (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, -1, channels)


class Changing(nn.Module):
    """In-place ops and assignments to slices."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.clone().mul_(2).relu_()
        y[:, 0] = 1
        y[:, 1:3] += x[:, 2:4]
        return F.pad(torch.where(y > 0.5, y, torch.full_like(y, -1e9)), (1, 2))


LAYERS = nn.Sequential(
    nn.ConvTranspose2d(8, 4, 2, 2),
    nn.PixelUnshuffle(2),
    nn.Conv2d(16, 8, 3, padding="same", groups=4),
    nn.GroupNorm(2, 8),
    nn.Hardswish(),
    nn.LocalResponseNorm(3),
    nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    nn.Upsample(scale_factor=2, mode="bilinear"),
    nn.GELU("tanh"),
    nn.PReLU(8),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
)
MODELS = {
    "small": (Small, lambda n: torch.randn(n, 3, 8, 8)),
    "attention": (Attention, lambda n: torch.randint(0, 11, (n, 5))),
    "windows": (Windows, lambda n: torch.randn(n, 8, 8, 8)),
    "changing": (Changing, lambda n: torch.randn(n, 6, 3)),
    "layers": (lambda: LAYERS, lambda n: torch.randn(n, 8, 8, 8)),
    "bf16": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU()).bfloat16(),
        lambda n: torch.randn(n, 3, 5, 5).bfloat16(),
    ),
}


def saved(module: TracedModule) -> tuple[Any, dict[str, torch.Tensor]]:
    """A graph as it comes out of a file, and copies of its tensors that keep the ties."""
    data = json.loads(json.dumps(to_json(module)))
    copies: dict[int, torch.Tensor] = {}
    named = {name: get_tensor(module, name) for name in data["tensors"]}
    return data, {name: copies.setdefault(id(value), value.detach().clone()) for name, value in named.items()}


def leaves(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


@pytest.mark.parametrize("name", MODELS)
def test_the_same_bits_for_any_batch(name):
    make, inputs = MODELS[name]
    model = make().eval()
    module = from_json(*saved(capture(model, inputs(2)).module))
    assert isinstance(module, TracedModule)
    assert not module.training
    for batch in (1, 2, 5):
        x = inputs(batch)
        with torch.no_grad():
            expected, found = model(x), module(x)
        assert type(found) is type(expected)
        for one, other in zip(leaves(expected), leaves(found), strict=True):
            assert torch.equal(one, other)


def test_twice_is_the_same_json():
    data, tensors = saved(capture(Small(), torch.randn(2, 3, 8, 8)).module)
    assert to_json(from_json(data, tensors)) == data


def test_structure_of_inputs_and_outputs():
    model = Attention().eval()
    ids, mask = torch.randint(0, 11, (2, 5)), torch.tensor([[False] * 4 + [True]] * 2)
    module = from_json(*saved(capture(model, {"ids": ids, "mask": mask}).module))
    with torch.no_grad():
        assert torch.equal(module(ids=ids, mask=mask), model(ids, mask))
    module = from_json(*saved(capture(Small(), torch.randn(2, 3, 8, 8)).module))
    found = module(torch.randn(3, 3, 8, 8))
    assert [type(found["both"]), type(found["features"]), found["none"]] == [tuple, list, None]
    assert list(found) == ["both", "features", "none"]


def test_ties_and_kinds_are_kept():
    module = from_json(*saved(capture(Attention(), torch.randint(0, 11, (2, 5))).module))
    assert get_tensor(module, "head.weight") is get_tensor(module, "embed.weight")
    model = Small()
    model.conv.weight.requires_grad_(False)
    module = from_json(*saved(capture(model, torch.randn(2, 3, 8, 8)).module))
    kinds = tensor_kinds(module)
    assert kinds.items() >= tensor_kinds(model).items()
    assert (kinds["conv.weight"], kinds["scale"], kinds["bn.running_mean"]) == (
        "frozen",
        "temporary",
        "buffer",
    )


def test_it_trains():
    module = from_json(*saved(capture(Small(), torch.randn(2, 3, 8, 8)).module))
    x, before = torch.randn(4, 3, 8, 8), get_tensor(module, "bn.running_mean").clone()
    module.train()
    first, second = module(x)["both"][0], module(x)["both"][0]
    assert not torch.equal(first, second), "dropout is off in training"
    first.sum().backward()
    assert get_tensor(module, "conv.weight").grad is not None
    assert not torch.equal(get_tensor(module, "bn.running_mean"), before)
    module.eval()
    assert torch.equal(module(x)["both"][0], module(x)["both"][0])


def test_every_allowed_op_exists_and_writes_nothing_outside():
    forbidden = ("from_file", "set_", "resize", "as_strided", "empty", "data_ptr", "storage", "quantized")
    for name in ATEN:
        _, packet, overload = name.split(".")
        schema = getattr(getattr(torch.ops.aten, packet), overload)._schema
        assert not any(packet == word or packet.startswith(word) for word in forbidden), name
        assert not any(argument.is_out for argument in schema.arguments), name


@pytest.mark.parametrize(
    "values",
    [
        [None, True, 0, -7, 0.1, -0.0, math.inf, -math.inf, [1, [2.5, None]], "same"],
        [torch.float16, torch.strided, torch.channels_last, torch.device("cpu")],
    ],
)
def test_values_round_trip(values):
    for value in values:
        found = decode(json.loads(json.dumps(encode(value))), {})
        assert found == value
        assert type(found) is type(value)
        assert not isinstance(value, float) or math.copysign(1, found) == math.copysign(1, value)


def test_nan_round_trips():
    assert math.isnan(decode(encode(math.nan), {}))


def test_trees():
    value = {"a": (1, [2]), "b": {"c": 3}}
    tree = describe(value, lambda leaf: {"leaf": leaf})
    assert walk(tree, lambda content: content["leaf"]) == value
    assert [leaf["leaf"] for leaf in spec_of(tree)[1]] == [1, 2, 3]


def test_an_op_that_cannot_be_saved_is_named():
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x)

    with pytest.raises(ArtifactError, match=r"aten\.special_bessel_j0\.default .*is not among those"):
        to_json(capture(Odd(), torch.zeros(2, 3)).module)


def test_a_module_call_is_not_an_op():
    traced = torch.fx.symbolic_trace(nn.Sequential(nn.ReLU()))
    with pytest.raises(ArtifactError, match="capture the model again"):
        to_json(traced)
    plain = torch.fx.symbolic_trace(Plain())
    module = from_json(json.loads(json.dumps(to_json(plain))), {})
    assert torch.equal(module(torch.tensor([-1.0, 2.0])), torch.tensor([0.0, 2.0]))


class Plain(nn.Module):
    """Traced by fx itself, without the specs of torch.export."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten.relu.default(x)
