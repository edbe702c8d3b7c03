"""Criteria in closed form, aggregation, normalisation, and selection against brute force."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lianzhi.graph import capture, channel_groups
from lianzhi.prune import GroupView, criteria
from lianzhi.prune.importance import aggregate, normalize
from lianzhi.prune.selection import Limits, Size, kept_count, least_kept, select, wanted_globally

WEIGHT = torch.tensor([[1.0, -2.0], [0.0, 4.0], [-3.0, -3.0]])


@pytest.fixture
def view():
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))
    with torch.no_grad():
        net[0].weight.copy_(WEIGHT[:, :, None, None])
        net[1].weight.copy_(torch.tensor([0.5, -2.0, 0.0]))
    graph = capture(net, torch.zeros(1, 2, 4, 4))
    (group,) = channel_groups(graph).groups
    return GroupView(group, graph.module)


def test_closed_forms(view):
    assert [score.tolist() for score in criteria.l1(view)] == [[3.0, 4.0, 6.0]]
    assert [score.tolist() for score in criteria.l1(view, per_weight=True)] == [[1.5, 2.0, 3.0]]
    assert torch.allclose(criteria.l2(view)[0], torch.tensor([5.0, 16.0, 18.0]).double().sqrt())
    assert torch.allclose(
        criteria.l2(view, per_weight=True)[0], torch.tensor([2.5, 8.0, 9.0]).double().sqrt()
    )
    assert [score.tolist() for score in criteria.bn_scale(view)] == [[0.5, 2.0, 0.0]]


def test_random_depends_on_the_seed_alone(view):
    first, again, other = (criteria.random(view, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_transposed_convolution_is_scored_by_its_outputs():
    net = nn.Sequential(nn.ConvTranspose2d(2, 3, 1), nn.Conv2d(3, 1, 1))
    with torch.no_grad():
        net[0].weight.copy_(WEIGHT.T[:, :, None, None])
    graph = capture(net, torch.zeros(1, 2, 4, 4))
    (group,) = channel_groups(graph).groups
    assert criteria.l1(GroupView(group, graph.module))[0].tolist() == [3.0, 4.0, 6.0]


def test_aggregate_and_normalize():
    scores = [torch.tensor([1.0, 5.0]), torch.tensor([3.0, 1.0])]
    found = {how: aggregate(scores, how).tolist() for how in ("sum", "mean", "max", "first")}
    assert found == {"sum": [4, 6], "mean": [2, 3], "max": [3, 5], "first": [1, 5]}
    values = torch.tensor([1.0, 3.0])
    assert normalize(values, "none") is values
    assert normalize(values, "mean").tolist() == [0.5, 1.5]
    assert torch.allclose(normalize(values, "max"), torch.tensor([1 / 3, 1.0]))
    assert normalize(values, "standard").tolist() == [-1.0, 1.0]
    assert bool(torch.isfinite(normalize(torch.zeros(3), "mean")).all())


lists = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=5)


@settings(max_examples=80, deadline=None)
@given(lists, st.floats(0.01, 0.99))
def test_the_global_ranking_is_that_of_a_sorted_list(values, ratio):
    scores = [torch.tensor(list(map(float, value))) for value in values]
    ranked = sorted((score, index) for index, value in enumerate(values) for score in value)
    gone = [index for _, index in ranked[: round(len(ranked) * ratio)]]
    wanted = wanted_globally(scores, ratio)
    assert sum(wanted) == len(ranked) - len(gone)
    assert wanted == [len(value) - gone.count(index) for index, value in enumerate(values)]


@settings(max_examples=120, deadline=None)
@given(
    st.integers(1, 100),
    st.integers(0, 100),
    st.integers(1, 16),
    st.integers(1, 10),
    st.floats(0.05, 1.0),
    st.integers(1, 4),
)
def test_counts_keep_to_the_limits(total, wanted, step, least, ratio, width):
    limits = Limits(step, least, ratio)
    kept = kept_count(total, wanted, limits, width)
    assert 1 <= kept <= total
    assert kept == total or (kept * width) % step == 0
    assert kept >= min(total, least_kept(total, limits, width))
    assert kept * width >= min(total * width, least)
    if step == 1:
        assert kept == min(total, max(wanted, least_kept(total, limits, width)))


@settings(max_examples=60, deadline=None)
@given(lists, st.floats(0.01, 0.99), st.sampled_from(["global", "layer"]))
def test_the_best_are_kept(values, ratio, scope):
    scores = [torch.tensor(list(map(float, value))) for value in values]
    for score, keep in zip(
        scores, select(scores, [Size()] * len(scores), scope, ratio, Limits()).keeps, strict=True
    ):
        if not keep.all():
            assert score[keep].min() >= score[~keep].max()
