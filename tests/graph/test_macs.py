"""Multiply-accumulates against hand counts and against PyTorch's own counter."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lianzhi.graph import capture, layers, macs


class Products(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(5))

    def forward(self, x):
        y = x @ self.weight
        z = torch.bmm(y, y.transpose(1, 2))
        return torch.addmm(self.bias, z.flatten(0, 1), z[0]) + torch.einsum("bij,bkj->ik", x, x).sum()


NETS = {
    "conv": (nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 9, 9)),
    "grouped": (nn.Conv2d(8, 12, 3, groups=4), (8, 7, 7)),
    "depthwise": (nn.Conv2d(8, 8, 3, groups=8), (8, 7, 7)),
    "transposed": (nn.ConvTranspose2d(6, 4, 3, stride=2), (6, 5, 5)),
    "conv1d": (nn.Conv1d(4, 6, 3), (4, 9)),
    "linear": (nn.Linear(6, 5), (7, 6)),
    "products": (Products(), (5, 6)),
}


@pytest.mark.parametrize("name", NETS)
def test_half_of_pytorchs_own_flop_count(name):
    net, shape = NETS[name]
    with FlopCounterMode(display=False) as counter:
        net(torch.randn(1, *shape))
    assert macs(capture(net, torch.randn(1, *shape))) == counter.get_total_flops() // 2


def test_by_hand():
    assert macs(capture(nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.zeros(1, 3, 4, 4))) == 16 * 8 * 27
    attention = 5 * 5 * (5 + 4)
    assert macs(capture(Attention(), (torch.zeros(1, 2, 5, 5), torch.zeros(1, 2, 5, 4)))) == 2 * attention


def test_gates_of_recurrent_layers_by_hand():
    lstm = nn.LSTM(4, 3, num_layers=2, bidirectional=True, batch_first=True)
    first, second = 4 * 3 * (4 + 3), 4 * 3 * (6 + 3)
    assert macs(capture(lstm, torch.zeros(1, 7, 4))) == 7 * 2 * (first + second)
    assert macs(capture(nn.GRU(5, 2, batch_first=True), torch.zeros(1, 6, 5))) == 6 * 3 * 2 * (5 + 2)


class Attention(nn.Module):
    def forward(self, query, value):
        return F.scaled_dot_product_attention(query, query, value)


def test_the_batch_does_not_count():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 16, 5))
    counts = {macs(capture(net, torch.zeros(batch, 3, 6, 6))) for batch in (1, 2, 7)}
    assert counts == {16 * 4 * 27 + 64 * 5}


def test_layers():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 16, 5))
    rows = layers(capture(net, torch.zeros(1, 3, 6, 6)))
    assert [(row["name"], row["type"], row["shape"], row["macs"], row["parameters"]) for row in rows] == [
        ("0", "conv2d", [4, 4, 4], 1728, 112),
        ("1", "batch_norm", [4, 4, 4], 0, 8),
        ("3", "linear", [5], 320, 325),
    ]
