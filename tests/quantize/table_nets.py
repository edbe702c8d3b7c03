"""Small networks with embedding tables, and what a quantized one holds of them."""

import onnx
import torch
from torch import nn

from lianzhi.quantize import quantize

WORDS, WIDTH = 50, 16
CPU = ["onnxruntime", "openvino"]


class Tokens(nn.Module):
    """Three tables, one of them looked up twice; a norm, a layer."""

    def __init__(self, words=WORDS, width=WIDTH):
        super().__init__()
        self.word, self.place = nn.Embedding(words, width, padding_idx=0), nn.Embedding(12, width)
        self.kind, self.norm = nn.Embedding(2, width), nn.LayerNorm(width)
        self.out = nn.Linear(width, 4)

    def forward(self, ids):
        places = torch.arange(ids.shape[1], device=ids.device)[None]
        kinds = torch.zeros_like(ids)
        return self.out(
            self.norm(self.word(ids) + self.word(ids.flip(1)) + self.place(places) + self.kind(kinds))
        )


class Tied(nn.Module):
    """A decoder that shares the table."""

    def __init__(self):
        super().__init__()
        self.word, self.norm = nn.Embedding(WORDS, WIDTH), nn.LayerNorm(WIDTH)
        self.hidden, self.decoder = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WORDS)
        self.decoder.weight = self.word.weight

    def forward(self, ids):
        return self.decoder(torch.relu(self.hidden(self.norm(self.word(ids)))))


class Plain(nn.Module):
    """A table and nothing else."""

    def __init__(self, table):
        super().__init__()
        self.table = nn.Embedding.from_pretrained(table, padding_idx=0)

    def forward(self, ids):
        return self.table(ids)


def made(net=Tokens):
    torch.manual_seed(0)
    return net().eval(), torch.randint(0, WORDS, (24, 7))


def quantized(net=Tokens, **options):
    model, ids = made(net)
    return model, ids, quantize(model, ids[:2], list(ids.split(8)), **options)


def rows_of(form, kind="embedding"):
    return {row["name"]: row for row in form.report["layers"] if row["type"] == kind}


def stored(path, rows=WORDS):
    """The tensors of a file that have a dimension of so many rows: name → type and shape."""
    return {
        item.name: (item.data_type, tuple(item.dims))
        for item in onnx.load(path).graph.initializer
        if len(item.dims) == 2 and rows in item.dims
    }
