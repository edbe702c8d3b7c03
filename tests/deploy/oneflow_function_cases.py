"""Cases of attention, LSTMs, shapes, arithmetic, and what else is no layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from oneflow_case import case, heads, images, layer, mask, mask_of_pairs, places, rows, several
from torch import nn

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
