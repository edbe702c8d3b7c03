"""Small networks of sequences (N, 6, 12): attention in its forms, normalisation over channels, recurrence."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

TOKENS, WIDTH, HEADS, SIZE = 6, 12, 4, 3


class Net(nn.Module):
    """A projection of the input, a body, a classifier on the mean over the tokens."""

    def __init__(self, width=WIDTH):
        super().__init__()
        self.embed, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(width, 5)

    def body(self, x):
        raise NotImplementedError

    def forward(self, x):
        return self.head(self.body(self.embed(x)).mean(1))


class Attention(Net):
    """Heads by view and transpose, products by matmul, dropout of the scores, a residual stream."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def split(self, x):
        return x.view(*x.shape[:2], -1, SIZE).transpose(1, 2)

    def body(self, x):
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        scores = F.dropout((q @ k.transpose(-1, -2) / math.sqrt(SIZE)).softmax(-1), 0.1, self.training)
        return x + self.o((scores @ v).transpose(1, 2).flatten(2))


class Fused(Attention):
    """One projection for queries, keys and values, and the fused kernel with a causal mask."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        del self.q, self.k, self.v

    def body(self, x):
        q, k, v = (self.split(part) for part in self.qkv(x).chunk(3, -1))
        return x + self.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class Packed(Fused):
    """As ViT does it: (three, heads, size) in one reshape and permute, with a mask and a scale of its own."""

    def body(self, x):
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, HEADS, SIZE).permute(2, 0, 3, 1, 4).unbind(0)
        mask = torch.ones(t, t, dtype=torch.bool).tril()
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3)
        return x + self.o(y.transpose(1, 2).reshape(n, t, HEADS * SIZE))


class Grouped(Attention):
    """Two heads of keys and values for four of queries, repeated by expand and reshape."""

    def __init__(self):
        super().__init__()
        self.k, self.v = nn.Linear(WIDTH, 2 * SIZE), nn.Linear(WIDTH, 2 * SIZE)

    def repeat(self, x):
        n, h, t, d = x.shape
        return x[:, :, None].expand(n, h, 2, t, d).reshape(n, h * 2, t, d)

    def body(self, x):
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        y = F.scaled_dot_product_attention(q, self.repeat(k), self.repeat(v))
        return x + self.o(y.transpose(1, 2).flatten(2))


class NativeGrouped(Grouped):
    def body(self, x):
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return x + self.o(y.transpose(1, 2).flatten(2))


class Single(Attention):
    """One head: its dimensions go one by one, and the scale stays that of the old size."""

    def body(self, x):
        return x + self.o(F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x)))


class Rotary(Attention):
    """Queries and keys turned by angles from a buffer of frequencies."""

    def __init__(self):
        super().__init__()
        self.register_buffer("frequency", torch.tensor([1.0, 0.3]))
        self.q, self.k, self.v, self.o = (
            nn.Linear(12, 16),
            nn.Linear(12, 16),
            nn.Linear(12, 16),
            nn.Linear(16, 12),
        )

    def split(self, x):
        return x.view(*x.shape[:2], -1, 4).transpose(1, 2)

    def turn(self, x):
        angle = torch.arange(TOKENS)[:, None] * self.frequency[None, :]
        angle = torch.cat([angle, angle], -1)
        first, second = x[..., :2], x[..., 2:]
        return x * angle.cos() + torch.cat([-second, first], -1) * angle.sin()

    def body(self, x):
        q, k, v = self.turn(self.split(self.q(x))), self.turn(self.split(self.k(x))), self.split(self.v(x))
        return x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Biased(Attention):
    """A bias of the scores for each head, picked from a table by the distance, and tokens rolled on."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(2 * TOKENS - 1, HEADS))
        place = torch.arange(TOKENS)
        self.register_buffer("distance", place[:, None] - place[None, :] + TOKENS - 1)

    def body(self, x):
        x = x.roll(2, 1)
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        bias = self.table[self.distance.view(-1)].view(TOKENS, TOKENS, -1).permute(2, 0, 1)
        scores = (q @ k.transpose(-1, -2) + bias.unsqueeze(0)).softmax(-1)
        return x + self.o((scores @ v).transpose(1, 2).flatten(2))


class Einsum(Attention):
    def body(self, x):
        q, k, v = (layer(x).unflatten(-1, (HEADS, SIZE)) for layer in (self.q, self.k, self.v))
        scores = torch.einsum("nqhd,nkhd->nhqk", q, k).softmax(-1)
        return x + self.o(torch.einsum("nhqk,nkhd->nqhd", scores, v).flatten(2))


class Batched(Attention):
    """bmm and baddbmm over heads folded into the batch, addmm of a weight (in, out)."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(WIDTH, 7)), nn.Parameter(torch.randn(7))
        self.down = nn.Linear(7, WIDTH)

    def body(self, x):
        n, t, c = x.shape
        y = torch.addmm(self.bias, x.reshape(-1, c), self.weight).view(n, t, -1)
        x = x + self.down(F.gelu(y))
        q, k, v = (self.split(layer(x)).flatten(0, 1) for layer in (self.q, self.k, self.v))
        scores = torch.baddbmm(torch.zeros(1, t, t), q, k.transpose(1, 2), alpha=0.5).softmax(-1)
        return x + self.o(torch.bmm(scores, v).view(n, -1, t, SIZE).transpose(1, 2).flatten(2))


class MultiHead(Net):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def body(self, x):
        return x + self.attention(x, x, x, need_weights=False)[0]


class Encoder(Net):
    """PyTorch's own encoder layer, whose forward asserts its sizes."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 9, batch_first=True, norm_first=True)

    def body(self, x):
        return self.layer(x)


class Embedded(nn.Module):
    """Word and position embeddings, tied to the output, LayerNorm and RMSNorm over the stream."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(11, WIDTH), nn.Embedding(TOKENS, WIDTH)
        self.layer, self.rms = nn.LayerNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH)
        self.output = nn.Linear(WIDTH, 11, bias=False)
        self.output.weight = self.words.weight

    def forward(self, x):
        ids = (x[:, :, 0].abs() * 5).long().clamp(0, 10)
        y = self.words(ids) + self.places(torch.arange(TOKENS))
        y = self.layer(y)
        y = y + self.down(F.silu(self.up(self.rms(y))))
        return self.output(y)


class Norms(Net):
    """Statistics over channels: GRN, a softmax, a mean, a variance, GroupNorm of few groups and of many."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.few, self.many = nn.GroupNorm(2, WIDTH), nn.GroupNorm(6, WIDTH)
        self.gamma = nn.Parameter(torch.randn(WIDTH))

    def body(self, x):
        size = x.norm(dim=1, keepdim=True)
        x = self.gamma * x * (size / (size.mean(-1, keepdim=True) + 1e-6)) + x
        x = self.a(x).softmax(-1)
        y = self.b(x)
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, unbiased=False) + 1).sqrt()
        y = self.few(self.c(y).transpose(1, 2)).transpose(1, 2)
        return self.many(self.d(y).transpose(1, 2)).transpose(1, 2)


class Recurrent(Net):
    """Two layers and both directions of an LSTM, then a GRU."""

    def __init__(self):
        super().__init__(7)
        self.lstm = nn.LSTM(WIDTH, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(16, 7, batch_first=True)

    def body(self, x):
        return self.gru(self.lstm(x)[0])[0]


NETS = {
    net.__name__: net
    for net in (
        Attention, Fused, Packed, Grouped, NativeGrouped, Single, Rotary, Biased, Einsum, Batched, MultiHead, Encoder,
        Embedded, Norms, Recurrent,
    )
}  # fmt: skip


def made(name):
    torch.manual_seed(0)
    return NETS[name]().eval(), torch.randn(1, TOKENS, WIDTH)
