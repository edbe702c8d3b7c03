"""Which value counts as a layer's activation, and the forms in which inputs may come."""

from __future__ import annotations

import pytest
import torch
from small_cnn import IMAGE
from torch import nn
from torch.nn import functional

from lianzhi.graph import capture, channel_groups
from lianzhi.prune import plan
from lianzhi.prune.activations import activation_nodes, collect


class Gates(nn.Module):
    """Activations that are written out, gated, missing, and behind a flatten."""

    def __init__(self):
        super().__init__()
        self.swish, self.gate, self.up = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1)
        self.linear, self.flat, self.last = nn.Conv2d(6, 5, 1), nn.Linear(5 * 64, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.swish(x)
        x = x * torch.sigmoid(x)
        x = functional.silu(self.gate(x)) * self.up(x)
        return self.last(functional.gelu(self.flat(self.linear(x).flatten(1))))


def test_which_value_is_the_activation():
    net = Gates().eval()
    graph = capture(net, IMAGE)
    groups = channel_groups(graph)
    found = {
        group.name: [node.name for node in activation_nodes(graph, groups, group)] for group in groups.groups
    }
    assert found == {"swish": ["mul"], "gate": ["silu", "mul_1"], "linear": ["flatten"], "flat": ["gelu"]}
    batch = torch.randn(5, 3, 8, 8)
    (seen,) = collect(graph, groups, [batch], IMAGE)["linear"]
    with torch.no_grad():
        x = net.swish(batch)
        x = x * torch.sigmoid(x)
        x = net.linear(functional.silu(net.gate(x)) * net.up(x))
    assert torch.allclose(seen.magnitude, x.abs().mean((0, 2, 3)).double(), rtol=1e-5)


class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, left, right):
        return self.last(torch.relu(self.first(left * 2 - right)))


@pytest.mark.parametrize("criterion", ["mean_activation", "taylor", "hessian"])
def test_dicts_and_tuples_of_inputs(criterion):
    net = Keywords()
    left, right, labels = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    loss = {} if criterion == "mean_activation" else {"loss": functional.cross_entropy}
    kept = []
    for example, batch in (
        ({"left": left[:1], "right": right[:1]}, {"right": right, "left": left}),
        ((left[:1], right[:1]), (left, right)),
    ):
        calibration = [(batch, labels)] if loss else [batch]
        kept.append(plan(net, example, ratio=0.5, criterion=criterion, calibration=calibration, **loss).kept)
    assert kept[0] == kept[1]


def test_frozen_parameters_are_scored_and_grad_fields_are_left_alone():
    net = Keywords().requires_grad_(False)
    net.first.weight.grad = torch.ones_like(net.first.weight)
    pairs = [((torch.randn(4, 3), torch.randn(4, 3)), torch.tensor([0, 1, 1, 0]))]
    example = (torch.zeros(1, 3), torch.zeros(1, 3))
    plan(net, example, ratio=0.5, criterion="taylor", calibration=pairs, loss=functional.cross_entropy)
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert bool((net.first.weight.grad == 1).all())
    assert net.last.weight.grad is None
