"""Small modules for OneFlow source, one an operation or a use of it: what a module is made of, and its inputs.

Both the tests without OneFlow and those with it go through them. `CASES` is name → function that returns (module, inputs).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CASES: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {}


class Applied(nn.Module):
    """Calls a function with itself and its inputs; the function finds the layers in it."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def case(
    name: str, function: Callable[..., Any], *inputs: Callable[[], Tensor], **layers: Callable[[], nn.Module]
) -> None:
    """Put a case under its name; layers and inputs are made when it is run."""

    def make() -> tuple[nn.Module, tuple[Tensor, ...]]:
        module = Applied(function, **{key: layer() for key, layer in layers.items()})
        return filled(module), tuple(one() for one in inputs)

    CASES[name] = make


def layer(name: str, make: Callable[[], nn.Module], *inputs: Callable[[], Tensor]) -> None:
    """A case of one layer."""
    case(name, lambda self, x: self.layer(x), *(inputs or (images,)), layer=make)


def filled(module: nn.Module) -> nn.Module:
    """Random statistics, biases and scales in place of zeros and ones; in eval mode."""
    generator = torch.Generator().manual_seed(0)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.1)
        if name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module.eval()


def images() -> Tensor:
    return torch.randn(3, 4, 9, 9, generator=torch.Generator().manual_seed(1))


def rows() -> Tensor:
    return torch.randn(3, 3, 5, generator=torch.Generator().manual_seed(2))


def volumes() -> Tensor:
    return torch.randn(2, 3, 5, 5, 5, generator=torch.Generator().manual_seed(3))


def flat() -> Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(4))


def heads() -> Tensor:
    return torch.randn(3, 2, 5, 4, generator=torch.Generator().manual_seed(5))


def places() -> Tensor:
    return torch.randint(0, 5, (3, 5), generator=torch.Generator().manual_seed(6))


def mask() -> Tensor:
    return torch.rand(3, 5, generator=torch.Generator().manual_seed(7)) > 0.4


def mask_of_pairs() -> Tensor:
    made = torch.rand(3, 1, 5, 5, generator=torch.Generator().manual_seed(8)) > 0.5
    made[0, 0, 2] = False  # a row that is hidden whole
    return made


def several(name: str, layers: list[Callable[[], nn.Module]], *inputs: Callable[[], Tensor]) -> None:
    """A case of layers of one kind, each on the same input."""
    case(
        name,
        lambda self, x: tuple(one(x) for one in self.layers),
        *(inputs or (images,)),
        layers=lambda: _list(layers),
    )


def _list(layers: list[Callable[[], nn.Module]]) -> nn.ModuleList:
    return nn.ModuleList(one() for one in layers)


SLIDES = [(1, 0, 0, 1), (2, 1, 1, 1), ((2, 1), (1, 0), (1, 0), 1), (1, 2, 0, 2)]
several("conv", [lambda s=s, p=p, d=d: nn.Conv2d(4, 6, 3, s, p, d) for s, p, _, d in SLIDES])
several(
    "conv_transpose",
    [lambda s=s, p=p, o=o, d=d: nn.ConvTranspose2d(4, 6, 3, s, p, o, dilation=d) for s, p, o, d in SLIDES],
)
several(
    "conv of several kinds",
    [
        lambda: nn.Conv2d(4, 8, 3, groups=4, bias=False),
        lambda: nn.ConvTranspose2d(4, 8, 3, 2, 1, 1, groups=2),
        lambda: nn.Conv2d(4, 6, (3, 5), padding="same", dilation=(1, 2)),
        lambda: nn.Conv2d(4, 6, 3, padding="valid"),
        lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
        lambda: nn.Conv2d(4, 6, 3, padding=2, padding_mode="replicate"),
    ],
)
layer("conv1d", lambda: nn.Conv1d(3, 6, 3, 2, 1), rows)
layer("conv3d", lambda: nn.Conv3d(3, 6, 3, 2, 1), volumes)
layer("conv_transpose1d", lambda: nn.ConvTranspose1d(3, 6, 3, 2, 1), rows)

WINDOWS = [(2, None, 0), (3, 2, 1), (2, 2, 0), ((3, 2), (2, 1), (1, 0)), (3, 1, 1), (2, 3, 1), (3, 3, 0)]
EACH = [(window, ceil) for window in WINDOWS for ceil in (False, True)]
several("max_pool", [lambda w=w, c=c: nn.MaxPool2d(*w, ceil_mode=c) for w, c in EACH])
several("avg_pool", [lambda w=w, c=c: nn.AvgPool2d(*w, ceil_mode=c) for w, c in EACH])
several(
    "avg_pool without padding",
    [lambda w=w, c=c: nn.AvgPool2d(*w, ceil_mode=c, count_include_pad=False) for w, c in EACH],
)
layer("max_pool dilated", lambda: nn.MaxPool2d(2, 2, 1, 2))
layer("avg_pool divided by 3", lambda: nn.AvgPool2d(2, divisor_override=3))
SIZES = (1, 3, (4, 2), (9, 9), (11, 13), (1, 5))
several("adaptive_avg_pool", [lambda s=s: nn.AdaptiveAvgPool2d(s) for s in SIZES])
several(
    "pools of rows",
    [
        lambda: nn.MaxPool1d(2, ceil_mode=True),
        lambda: nn.AvgPool1d(2, ceil_mode=True),
        lambda: nn.AdaptiveAvgPool1d(3),
    ],
    rows,
)
several(
    "pools of volumes",
    [lambda: nn.MaxPool3d(2, padding=1), lambda: nn.AvgPool3d(2, padding=1), lambda: nn.AdaptiveAvgPool3d(2)],
    volumes,
)
BENDS = [
    *(
        nn.ReLU,
        nn.ReLU6,
        nn.Tanh,
        nn.Sigmoid,
        nn.SiLU,
        nn.Mish,
        nn.Hardswish,
        nn.Hardsigmoid,
        nn.LeakyReLU,
        nn.ELU,
    ),
    *(
        nn.CELU,
        nn.SELU,
        nn.GELU,
        nn.Softplus,
        nn.LogSigmoid,
        nn.PReLU,
        lambda: nn.GELU("tanh"),
        lambda: nn.LeakyReLU(0.3),
    ),
    *(lambda: nn.ELU(0.3), lambda: nn.Hardtanh(-0.5, 0.7), lambda: nn.Softplus(2, 5), lambda: nn.GLU(1)),
    *(lambda: nn.PReLU(4), lambda: nn.Softmax(1), lambda: nn.LogSoftmax(-1)),
]
several("activations", BENDS, lambda: images() * 4)

several(
    "batch_norm",
    [
        lambda: nn.BatchNorm2d(4, eps=1e-3),
        lambda: nn.BatchNorm2d(4, affine=False),
        lambda: nn.BatchNorm2d(4, track_running_stats=False),
    ],
)
layer("batch_norm of rows", lambda: nn.BatchNorm1d(4), flat)
layer("batch_norm of sequences", lambda: nn.BatchNorm1d(3), rows)
layer("batch_norm of volumes", lambda: nn.BatchNorm3d(3), volumes)
several(
    "layer_norm",
    [
        lambda: nn.LayerNorm(5),
        lambda: nn.LayerNorm((3, 5)),
        lambda: nn.LayerNorm(5, bias=False),
        lambda: nn.LayerNorm(5, elementwise_affine=False),
    ],
    rows,
)
several("group_norm", [lambda: nn.GroupNorm(2, 4), lambda: nn.GroupNorm(2, 4, affine=False)])
several("embedding", [lambda: nn.Embedding(7, 4), lambda: nn.Embedding(7, 4, padding_idx=0)], places)
layer("linear without bias", lambda: nn.Linear(5, 2, bias=False), rows)
layer("linear of images", lambda: nn.Linear(9, 2))
layer("dropout", lambda: nn.Dropout(0.3))
layer("relu in place", lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True)))


def _added_in_place(self, x):
    y = self.layer(x)
    y += x
    F.relu_(y)
    return y * 2


case("sum in place", _added_in_place, images, layer=lambda: nn.Conv2d(4, 4, 1))

case("attention", lambda self, x: F.scaled_dot_product_attention(x, x * 2, x + 1), heads)
case(
    "attention causal", lambda self, x: F.scaled_dot_product_attention(x, x * 2, x + 1, is_causal=True), heads
)
case(
    "attention of places",
    lambda self, x, m: F.scaled_dot_product_attention(x, x * 2, x + 1, attn_mask=m, scale=0.7),
    *(heads, mask_of_pairs),
)
case(
    "attention biased",
    lambda self, x, b: F.scaled_dot_product_attention(x, x * 2, x + 1, attn_mask=b),
    *(heads, lambda: heads()[:, :1, :, :1].expand(3, 1, 5, 5).contiguous()),
)
case(
    "multi-head",
    lambda self, x: self.layer(x, x, x)[0],
    rows,
    layer=lambda: nn.MultiheadAttention(5, 1, batch_first=True),
)
layer("encoder layer", lambda: nn.TransformerEncoderLayer(5, 1, 8, batch_first=True), rows)
several(
    "lstm",
    [
        lambda: nn.LSTM(5, 4, 2, batch_first=True, bidirectional=True),
        lambda: nn.LSTM(5, 4, bias=False, batch_first=True),
    ],
    rows,
)
layer("lstm steps first", lambda: nn.LSTM(5, 4, 2), rows)
case(
    "lstm from states",
    lambda self, x: self.layer(x, (x.new_ones(1, x.shape[0], 4), x.new_full((1, x.shape[0], 4), 0.5))),
    *(rows,),
    layer=lambda: nn.LSTM(5, 4, batch_first=True),
)

case(
    "cut",
    lambda self, x: (x[:, 1:], x[:, :-1], x[:, :, ::2], x[:, -2:], x[:, 0], x[:, :, -1], x[:, 1:100]),
    images,
)
case("join", lambda self, x: (torch.cat([x, x], 1), torch.stack([x, x], -1), torch.stack([x, x])), rows)
case(
    "split",
    lambda self, x: (x.chunk(2, 1)[1], x.split(3, 1)[1], x.split([1, 3], 1)[0], x.unbind(2)[3]),
    images,
)
case(
    "reshape",
    lambda self, x: (
        *(
            x.permute(0, 2, 3, 1),
            x.transpose(-1, 1),
            x.flatten(1),
            x.flatten(1, 2),
            x.flatten(2),
            x.unsqueeze(1),
        ),
        *(x.unsqueeze(-1).squeeze(-1), x.flip([2, 3]), x.roll((1, -2), (2, 3)), x.repeat(1, 2, 1, 1)),
        x.unflatten(1, (2, 2)),
    ),
    images,
)
case(
    "windows",
    lambda self, x: x.view(x.shape[0], 4, 3, 3, 3, 3).permute(0, 2, 4, 1, 3, 5).reshape(-1, 36),
    images,
)
case(
    "sizes",
    lambda self, x: (
        x.reshape(x.shape[0] * 3, 5),
        x * (x.shape[0] // 2 + 1),
        x / x.shape[0] ** 2,
        x - x.numel(),
    ),
    rows,
)
case(
    "reduce",
    lambda self, x: (
        *(x.sum(1), x.mean((2, 3)), x.mean((-1, -2), keepdim=True), x.amax((2, 3)), x.amin(1), x.max(1)[0]),
        *(x.argmax(1), x.std(1), x.var((2, 3), unbiased=False), x.sum(), x.mean(), x.cumsum(1)),
    ),
    images,
)
case(
    "arithmetic",
    lambda self, x: (
        *(
            x + 1,
            1 - x,
            x * 2,
            x / 3,
            2 / (x.abs() + 1),
            x**2,
            x**3.0,
            -x,
            x.abs().sqrt(),
            (x.abs() + 1).rsqrt(),
        ),
        *(
            x.exp(),
            (x.abs() + 1).log(),
            x.erf(),
            x.sin(),
            x.cos(),
            x.floor(),
            x.clamp(-0.5, 0.5),
            x.clamp(min=0),
        ),
        *(x.clamp_max(0.3), torch.maximum(x, -x), torch.minimum(x, x * 2), torch.add(x, x, alpha=3)),
        *(torch.rsub(x, 2), torch.square(x), (x + 9).reciprocal()),
    ),
    images,
)
case(
    "whole numbers",
    lambda self, i: (
        *(
            i + 1,
            i * 2,
            i - 3,
            1 - i,
            i / 2,
            i * 0.5,
            i + 0.5,
            i > 2,
            i == 1,
            i != 1,
            i.float(),
            (i > 2).long(),
        ),
        *((i > 2).float(), i.cumsum(1), i.clamp(1, 3), i.sum(1), i.amax(1), i.sum(1, keepdim=True) - i),
        *((i > 2) & (i < 5), (i > 2) | (i == 0), ~(i > 2), i.to(torch.int32)),
    ),
    places,
)
case(
    "types that meet",
    lambda self, x, i, m: (
        *(x * m.unsqueeze(1), x + i.unsqueeze(1), x * i.unsqueeze(1), torch.where(m.unsqueeze(1), x, 0.0)),
        *(
            torch.where(m.unsqueeze(1), x, x * 2),
            torch.where(m, i, 0),
            torch.where(m, 1.0, 0.0),
            torch.where(m, i, 0.5),
        ),
        *(
            x.masked_fill(m.unsqueeze(1), -1e9),
            i.masked_fill(m, 9),
            torch.logical_and(m, i > 2),
            torch.logical_not(m),
        ),
        x.masked_fill(m.unsqueeze(1) & (i.unsqueeze(1) > 0), float("-inf")).softmax(-1),
    ),
    *(rows, places, mask),
)
case(
    "made",
    lambda self, x: (
        *(
            torch.arange(x.shape[2]).float() + x,
            torch.zeros(x.shape[0], 2),
            torch.ones_like(x),
            x.new_ones(2),
        ),
        *(
            torch.full((x.shape[0], 3), 2.5),
            x.new_zeros(x.shape[0], 1),
            torch.arange(1, 11, 2) + x,
            torch.zeros_like(x),
        ),
        *(
            torch.tensor([1.0, 2, 3, 4, 5]) * x,
            torch.tensor(2.5) * x,
            torch.full_like(x, 3),
            torch.tril(torch.ones(5, 5)),
            torch.ones(x.shape[0], 2, dtype=torch.bool),
            torch.zeros(3, dtype=torch.bool),
            torch.full((), 2.5) + x,
        ),
    ),
    rows,
)
case(
    "pick",
    lambda self, x, i: (
        *(
            x.gather(2, i.unsqueeze(1).expand(-1, 3, -1)),
            x.index_select(1, torch.tensor([0, 2])),
            x[:, [0, 2]],
        ),
        x[torch.arange(x.shape[0]), i.clamp(max=2)[:, 0]],
    ),
    *(rows, places),
)
case(
    "products",
    lambda self, x: (
        *(
            x @ x.transpose(1, 2),
            x @ torch.ones(5, 2),
            x @ torch.arange(5.0),
            torch.bmm(x, x.transpose(1, 2)),
        ),
        *(torch.addmm(torch.ones(2), x[:, 0], torch.ones(5, 2), beta=0.5, alpha=2), torch.ones(4, 3) @ x),
        *(torch.baddbmm(x[:, :, :3], x, x.transpose(1, 2)), torch.mm(x[:, 0], torch.ones(5, 2))),
    ),
    rows,
)
case(
    "pad",
    lambda self, x: (
        *(
            F.pad(x, (1, 2)),
            F.pad(x, (0, 0, 1, 0), value=-1.5),
            F.pad(x, (0, 0, 0, 0, 1, 2)),
            F.pad(x, (-1, -1)),
        ),
        *(F.pad(x, (1, 1, 1, 1), mode="reflect"), F.pad(x, (1, 1, 1, 1), mode="replicate")),
    ),
    images,
)
case(
    "scale",
    lambda self, x: (
        *(
            F.interpolate(x, scale_factor=2),
            F.interpolate(x, size=(5, 7), mode="bilinear"),
            F.interpolate(x, size=(13, 7)),
        ),
        *(F.interpolate(x, size=(5, 7), mode="bilinear", align_corners=True),),
    ),
    images,
)


class Held(nn.Module):
    """Tensors that are no parameters: buffers saved or not, bare tensors, long and short; a tie; one that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.bare = torch.randn(200, generator=generator)
        self.register_buffer("unsaved", torch.randn(200, generator=generator), persistent=False)
        self.register_buffer("order", torch.arange(200).reshape(1, 200), persistent=False)
        self.register_buffer("flags", torch.rand(200, generator=generator) > 0.5)
        self.register_buffer("unread", torch.tensor(3))
        self.weight = nn.Parameter(torch.randn(200, generator=generator))
        self.tied = self.weight

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {
            "sum": x * self.bare + self.unsaved + self.order + self.weight,
            "product": self.tied * self.flags * x,
            "order": self.order,
            "flags": self.flags,
        }


CASES["held"] = lambda: (Held().eval(), (torch.randn(3, 200, generator=torch.Generator().manual_seed(0)),))
HOSTILE = (
    *(
        "forward_",
        "0",
        "12",
        "a-b",
        "x; import os",
        "to_global",
        "hold",
        "flow",
        "F",
        "block",
        "数",
        "__x",
        "self",
    ),
    *("@FORWARD@", "a b", "print", "it's", "{0}"),
)


class Hostile(nn.Module):
    """Layers and arguments of names that mean something else in the source, or end a string in it."""

    def __init__(self) -> None:
        super().__init__()
        for name in HOSTILE:
            self._modules[name] = nn.Linear(5, 5)

    def forward(self, flow: Tensor, attention: Tensor) -> Tensor:
        x = flow - attention
        for module in self._modules.values():
            x = module(x)
        return x


CASES["hostile names"] = lambda: (filled(Hostile()), (rows()[:, 0], rows()[:, 1]))
