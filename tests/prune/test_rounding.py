"""A deep net carries float32's rounding far; the proof tells it from a wrong index."""

from __future__ import annotations

import torch
from torch import nn

from lianzhi.graph import capture, channel_groups
from lianzhi.graph.rules import OUT
from lianzhi.prune import Plan, plan, proof


class Deep(nn.Module):
    """Forty layers that squeeze and blow up by turns, with a constant made in forward."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(24, 24) for _ in range(40))

    def forward(self, x):
        for index, layer in enumerate(self.layers):
            x = layer(x + torch.full((24,), 0.1, dtype=torch.float32))
            x = x.exp().clamp(max=50.0) if index % 4 == 3 else torch.tanh(x)
        return x


def test_rounding_is_told_from_a_wrong_index():
    torch.manual_seed(0)
    decided = plan(Deep(), torch.randn(1, 24), ratio=0.5, scope="layer")
    removed = decided.removed()
    narrow = proof._difference(decided.graph, decided.groups, removed, 0, wide=False)
    wide = proof._difference(decided.graph, decided.groups, removed, 0, wide=True)
    assert wide < 1e-12
    assert narrow == 0 or narrow > 1e-12  # on some processors both sums are rounded alike
    assert decided.verify() == (narrow if narrow <= proof.ROUNDING else wide)


def test_a_wrong_index_shows_in_float64_as_well():
    graph = capture(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), torch.zeros(1, 4))
    groups = channel_groups(graph)
    slot = groups.groups[0].slots(OUT)[0]
    of = groups.components.of.clone()
    of[groups.flow.labels.slots[slot]] = of[groups.flow.labels.slots[slot]].roll(1)
    components = type(groups.components)(of, groups.components.reasons)
    shifted = type(groups)(groups.groups, groups.frozen, components, groups.flow, groups.aliases)
    wrong = Plan(graph, shifted, {"0": torch.tensor([False, *[True] * 5])})
    assert proof._difference(graph, shifted, wrong.removed(), 0, wide=True) > 1e-3
    assert wrong.verify() > 1e-3
