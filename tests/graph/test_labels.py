"""Ties, phases and freezes, against components found by brute force."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lianzhi.graph.labels import FIXED, Labels, compact, core, spread, varying_dims


@st.composite
def ties(draw):
    count = draw(st.integers(2, 12))
    pairs = draw(st.lists(st.tuples(st.integers(0, count), st.integers(0, count)), max_size=15))
    return count, pairs


@settings(max_examples=60, deadline=None)
@given(ties())
def test_components_are_those_of_a_flood_fill(case):
    count, pairs = case
    labels = Labels()
    labels.fresh(count)
    for left, right in pairs:
        labels.tie(torch.tensor([left]), torch.tensor([right]))
    found = labels.solve()

    neighbours = {label: {label} for label in range(1, count + 1)}
    frozen = set()
    for left, right in pairs:
        if FIXED in (left, right):
            frozen |= {left, right} - {FIXED}
        else:
            neighbours[left].add(right)
            neighbours[right].add(left)

    def reach(label):
        seen, todo = set(), [label]
        while todo:
            here = todo.pop()
            if here not in seen:
                seen.add(here)
                todo += neighbours[here]
        return seen

    for label in neighbours:
        same = {other for other in neighbours if found.of[other] == found.of[label]}
        assert same == reach(label)
        assert (int(found.of[label]) in found.reasons) == bool(reach(label) & frozen)


def test_an_axis_has_the_same_labels_ever_after():
    labels = Labels()
    first = labels.axis("w", 0, 3)
    assert torch.equal(labels.axis("w", 0, 3), first)
    assert not set(labels.axis("w", 1, 3).tolist()) & set(first.tolist())


def test_a_freeze_gives_the_first_reason():
    labels = Labels()
    vector = labels.fresh(3)
    labels.freeze(vector[:1], "first")
    labels.freeze(vector[:2], "second")
    solved = labels.solve()
    assert [solved.reasons.get(int(solved.of[label])) for label in vector] == ["first", "second", None]


def test_the_box_ties_along_all_but_the_largest_dimension():
    labels = Labels()
    grid = labels.fresh(6).view(2, 3)
    labels.box(grid)
    solved = labels.solve().of[grid]
    assert torch.equal(solved[0], solved[1])
    assert len(solved[0].unique()) == 3


def test_the_box_leaves_alone_what_the_ties_made_a_product_already():
    labels = Labels()
    grid = labels.fresh(6).view(2, 3)
    labels.tie(grid, grid[:, :1])
    labels.box(grid)
    solved = labels.solve().of[grid]
    assert [len(row.unique()) for row in solved] == [1, 1]
    assert solved[0, 0] != solved[1, 0]


def test_the_box_spreads_what_is_frozen():
    labels = Labels()
    grid = labels.fresh(6).view(2, 3)
    labels.freeze(grid[0, 1], "asked for")
    labels.box(grid)
    solved = labels.solve()
    frozen = [[int(unit) in solved.reasons for unit in row] for row in solved.of[grid]]
    assert frozen == [[False, True, False]] * 2


def test_overlaps_are_tied_before_the_boxes():
    labels = Labels()
    heads, grid = labels.fresh(2), labels.fresh(10).view(2, 5)
    labels.tie_overlap(grid, heads[:, None])
    labels.box(grid)
    solved = labels.solve().of
    assert all(bool((solved[grid[head]] == solved[heads[head]]).all()) for head in range(2))
    assert solved[heads[0]] != solved[heads[1]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.data())
def test_compact_keeps_values_and_finds_the_dimensions(shape, data):
    kept = [data.draw(st.booleans()) for _ in shape]
    small = torch.tensor(
        data.draw(
            st.lists(
                st.integers(0, 2),
                min_size=torch.Size([n if k else 1 for n, k in zip(shape, kept, strict=True)]).numel(),
                max_size=torch.Size([n if k else 1 for n, k in zip(shape, kept, strict=True)]).numel(),
            )
        )
    ).view([n if k else 1 for n, k in zip(shape, kept, strict=True)])
    full = small.expand(shape).clone()
    found = compact(full)
    assert torch.equal(found, full)
    truth = {d for d in range(len(shape)) if not bool((full == full.narrow(d, 0, 1)).all())}
    assert varying_dims(found) == truth
    assert torch.equal(core(found).expand(shape), full)


def test_spread():
    layer = spread(torch.tensor([4, 5]), 1, (3, 2, 7))
    assert layer.shape == (3, 2, 7)
    assert varying_dims(layer) == {1}
