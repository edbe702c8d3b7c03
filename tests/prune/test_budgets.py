"""Budgets met from below by giving groups back, the latency budget with a timer that is told, and scopes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_cnn import IMAGE, small_cnn
from torch import nn

import lianzhi as lz
from lianzhi.errors import GraphError, RecipeError
from lianzhi.prune import latency as timing
from lianzhi.prune import plan
from lianzhi.prune.selection import Limits, Selection, Size, select, select_to_budget


def bisected(at, remaining, budget):
    """The smallest ratio alone, as bisection finds it."""
    best, low, high = at(1.0), 0.0, 1.0
    for _ in range(24):
        middle = (low + high) / 2
        trial = at(middle)
        if remaining(trial.keeps) <= budget:
            high, best = middle, trial
        else:
            low = middle
    return best


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from([4, 8, 16, 24, 32]), min_size=1, max_size=8),
    st.floats(0.2, 0.95),
    st.sampled_from([1, 4, 8]),
    st.sampled_from(["layer", "global"]),
    st.integers(0, 1000),
)
def test_never_over_the_budget_and_never_less_than_bisection(widths, budget, step, scope, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.randn(width, generator=generator) for width in widths]
    prices = [int(torch.randint(1, 9, (), generator=generator)) for _ in widths]
    whole = sum(width * price for width, price in zip(widths, prices, strict=True))
    limits = Limits(round_to=step)

    def remaining(keeps):
        return sum(int(keep.sum()) * price for keep, price in zip(keeps, prices, strict=True)) / whole

    def at(ratio):
        return select(scores, [Size()] * len(scores), scope, ratio, limits)

    if remaining(at(1.0).keeps) > budget:
        with pytest.raises(RecipeError, match="cannot be met"):
            select_to_budget(at, remaining, scores, budget, "macs", limits)
        return
    found, before = (
        select_to_budget(at, remaining, scores, budget, "macs", limits),
        bisected(at, remaining, budget),
    )
    assert remaining(found.keeps) <= budget
    assert all(bool((old <= new).all()) for old, new in zip(before.keeps, found.keeps, strict=True))
    for score, keep in zip(scores, found.keeps, strict=True):
        assert keep.all() or score[keep].min() >= score[~keep].max()
        assert keep.all() or int(keep.sum()) % step == 0


def test_groups_are_given_back_by_the_rank_of_what_they_regain():
    """Three groups lose their worse half at the same ratio, and the budget has room for one of them."""
    scores = [torch.tensor([9.0, 1.0]), torch.tensor([0.9, 0.8]), torch.tensor([5.0, 3.0])]

    def at(ratio):
        return select(scores, [Size()] * 3, "layer", ratio, Limits())

    found = select_to_budget(
        at, lambda keeps: sum(int(k.sum()) for k in keeps) / 6, scores, 4 / 6, "ratio", Limits()
    )
    assert [int(keep.sum()) for keep in found.keeps] == [1, 2, 1]
    assert found.wanted == [1, 2, 1]


def test_resnet56_in_steps_of_eight_ends_near_its_budget():
    decided = plan(lz.model("resnet56"), torch.zeros(1, 3, 32, 32), macs=0.47, round_to=8, scope="layer")
    assert 0.44 < decided.count("macs") / decided.count("macs", {}) <= 0.47
    assert all(int(keep.sum()) % 8 == 0 for keep in decided.keeps.values())


class Told:
    """A timer by a formula: the share of units that stay, and half as much again where a width is no multiple."""

    def __init__(self, total, block=1, floor=0.0, final=0.0):
        self.total, self.block, self.floor, self.more, self.calls = total, block, floor, final, []

    def __call__(self, keeps, *, final=False):
        widths = [int(keep.sum()) for keep in keeps]
        slow = 1.5 if any(width % self.block for width in widths) else 1.0
        share = max(self.floor, slow * sum(widths) / self.total) + (self.more if final else 0)
        self.calls.append((widths, final, share))
        return share

    def describe(self):
        return "a stop watch"


def to_latency(timer, budget, **limits):
    scores = [torch.arange(64.0), torch.arange(64.0)]
    own = Limits(**limits)

    def at(ratio, step):
        return select(
            scores, [Size()] * 2, "layer", ratio, Limits(step, own.min_channels, own.max_layer_ratio)
        )

    return timing.select_to_latency(at, timer, budget, own)


def test_latency_keeps_the_most_that_was_measured_to_be_fast_enough():
    timer = Told(128)
    selection, note = to_latency(timer, 0.5)
    fast = [sum(widths) for widths, _, share in timer.calls if share <= 0.5]
    assert selection.kept == max(fast)
    assert 62 <= selection.kept <= 64
    assert "a stop watch" in note
    assert timer.calls[-1][1], "the choice is measured finally"


def test_a_plan_that_the_final_measurement_refuses_is_followed_by_the_next_milder_one_not_by_the_smallest():
    timer = Told(128, final=0.01)
    selection, _ = to_latency(timer, 0.5)
    assert 60 <= selection.kept <= 62


def test_latency_tries_wider_steps_where_the_runtime_works_in_blocks():
    selection, _ = to_latency(Told(128, block=8), 0.55)
    assert [int(keep.sum()) % 8 for keep in selection.keeps] == [0, 0]
    assert selection.kept > 0.55 / 1.5 * 128  # exact widths would have to lose more
    exact, _ = to_latency(Told(128, block=8), 0.55, round_to=16)
    assert [int(keep.sum()) % 16 for keep in exact.keeps] == [0, 0]


def test_latency_that_cannot_be_met_names_the_least():
    with pytest.raises(
        RecipeError, match=r"latency=0.2 cannot be met: 0.400 is the least .* \(a stop watch\)"
    ):
        to_latency(Told(128, floor=0.4), 0.2)
    with pytest.raises(RecipeError, match="cannot be met"):  # quick at first, never at the final measurement
        to_latency(Told(128, final=1.0), 0.5)


def test_least_is_named_and_can_be_asked_for():
    net = small_cnn()
    with pytest.raises(RecipeError, match=r"parameters=0\.01 cannot be met: (0\.\d+) is the least") as caught:
        plan(net, IMAGE, parameters=0.01)
    least = float(str(caught.value).split("ask for parameters=")[1].split()[0])
    small = plan(net, IMAGE, parameters=least).apply()
    share = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in net.parameters())
    assert least - 0.001 <= share <= least


def test_limits_that_nothing_can_pass_are_told():
    with pytest.raises(RecipeError, match=r"1\.000 is the least .*nothing can go: loosen these limits"):
        plan(small_cnn(), IMAGE, parameters=0.9, round_to=64)
    decided = plan(small_cnn(), IMAGE, ratio=0.5, round_to=64)
    assert decided.notes[-1] == (
        "nothing goes: ratio=0.5 leaves every group whole, in widths that are multiples of 64 and with min_channels 1; "
        f"its widest group has {max(decided.units.values())} units"
    )
    assert not any("nothing goes" in note for note in plan(small_cnn(), IMAGE, ratio=0.5).notes)


def test_isomorphic_scope_ranks_layers_of_a_kind_together():
    layers = [module for _ in range(3) for module in (nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())]
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), *layers, nn.Flatten(), nn.Linear(512, 2))
    place = {"0": 0.0, "2": 100.0, "4": 200.0, "6": 300.0}
    decided = plan(
        net,
        IMAGE,
        ratio=1 / 3,
        scope="isomorphic",
        criterion=lambda view: torch.arange(8.0) + place[view.group.name],
    )
    # the first three are of a kind: 8 of their 24 go, those of the lowest layer, whose best is saved;
    # the last one is flattened: it loses 3 of 8
    assert {name: len(kept) for name, kept in decided.kept.items()} == {"0": 1, "2": 8, "4": 8, "6": 5}
    assert any(note.startswith("0: the ranking leaves none of 8") for note in decided.notes)


def test_the_ratio_a_layer_is_counted_from_its_dense_width():
    net = small_cnn()
    free = plan(net, IMAGE, ratio=0.8, scope="layer", max_layer_ratio=0.9)
    again = plan(net, IMAGE, ratio=0.8, scope="layer", max_layer_ratio=0.9, dense={"fc1": 40, "conv2": 16})
    assert [len(kept) for kept in free.kept.values()] == [1, 2, 2]
    assert [len(kept) for kept in again.kept.values()] == [1, 2, math.ceil(40 * 0.1)]


@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        ("conv2", {"conv1", "fc1"}),
        ("conv*", {"fc1"}),
        ("Linear", {"conv1", "conv2"}),
        (nn.Linear, {"conv1", "conv2"}),
        ([nn.BatchNorm2d, "fc2"], {"fc1"}),
        (["bn1", "fc1.weight"], {"conv2"}),
    ],
)
def test_ignored_layers(ignore, left):
    decided = plan(small_cnn(), IMAGE, ratio=0.5, scope="layer", ignore=ignore)
    assert set(decided.keeps) == left


class Twice(nn.Module):
    """Two layers of one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 2)
        self.one, self.two = (nn.Linear(8, 8, bias=False) for _ in range(2))
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.last(self.two(self.one(self.first(x).relu()).relu()).relu())


@pytest.mark.parametrize("name", ["one", "two", "one.weight", "two.weight"])
def test_a_tied_weight_is_ignored_under_any_of_its_names(name):
    assert set(plan(Twice(), torch.randn(1, 3), ratio=0.5).keeps) == {"first"}
    with pytest.raises(GraphError, match="all are ignored"):
        plan(Twice(), torch.randn(1, 3), ratio=0.5, ignore=name)


@pytest.mark.parametrize("ignore", ["conv9", ["conv1", "cnv*"], "LSTM", nn.LSTM, ["conv1", 3]])
def test_patterns_that_match_nothing(ignore):
    with pytest.raises(RecipeError, match=r"matches no layer|neither a name"):
        plan(small_cnn(), IMAGE, ratio=0.5, ignore=ignore)


def test_selection_counts_its_units():
    assert Selection([torch.tensor([True, False]), torch.tensor([True])], [1, 1]).kept == 2
