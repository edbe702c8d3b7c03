"""Cases of layers, and of functions that bend."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from oneflow_case import case, flat, images, layer, places, rows, several, volumes
from torch import nn

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
case(
    "a list of parameters",
    lambda self, x: x * self.scales[0] + self.scales[1],
    flat,
    scales=lambda: nn.ParameterList([torch.rand(4), torch.rand(4)]),
)
