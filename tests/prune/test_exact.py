"""Every removal is exact, for every way in which channels are coupled."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from coupled_nets import IMAGE, NETS, made
from hypothesis import given, settings
from hypothesis import strategies as st
from net_parts import random_keeps

from lianzhi.graph import capture, channel_groups, macs
from lianzhi.graph.labels import Slot
from lianzhi.graph.rules import IN
from lianzhi.prune import Plan

EXACT = 1e-5


@functools.cache
def captured(name):
    net, image = made(name)
    graph = capture(net, image)
    return Plan(graph, channel_groups(graph), {})


def mask(size, gone):
    keep = torch.ones(size, dtype=torch.bool)
    keep[gone] = False
    return keep


@pytest.mark.parametrize("name", NETS)
def test_every_single_removal_is_exact(name):
    decided = captured(name)
    assert decided.graph.dynamic_batch
    for group in decided.groups.groups:
        for unit in sorted({0, len(group) // 2, len(group) - 1}) if len(group) > 1 else []:
            decided.keeps = {group.name: mask(len(group), [unit])}
            assert decided.verify(seed=unit) < EXACT, (group.name, unit)


@pytest.mark.parametrize("name", NETS)
def test_random_removals_are_exact_run_both_ways_and_count_right(name):
    decided = captured(name)
    decided.keeps = random_keeps(decided, seed=1)
    assert decided.verify() < EXACT
    small = decided.apply()
    found = capture(small, torch.zeros(1, *IMAGE))
    assert found.dynamic_batch
    assert macs(found) == decided.count("macs")
    assert sum(parameter.numel() for parameter in small.parameters()) == decided.count("parameters")
    small.train()
    output = small(torch.randn(5, *IMAGE))
    output = output["logits"] if isinstance(output, dict) else output
    assert output.shape[0] == 5
    output.square().sum().backward()
    read = {str(node.target) for node in found.nodes if node.op == "get_attr"}
    for key, parameter in small.named_parameters():
        assert key not in read or parameter.grad is not None, key


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(NETS)), st.integers(0, 10_000), st.floats(0.05, 0.9))
def test_any_mask_is_exact(name, seed, share):
    decided = captured(name)
    decided.keeps = random_keeps(decided, seed, share)
    assert decided.verify(seed=seed) < EXACT


@pytest.mark.parametrize("name", NETS)
def test_what_surgery_returns_is_what_was_proved(name):
    """The original, its removed channels silenced through its own weights, gives what `apply` gives.

    Not so where a norm or a softmax runs over the channels: those groups say so, and stay whole here.
    """
    decided = captured(name)
    flagged = {group.name for group in decided.groups.groups if group.flags}
    decided.keeps = {
        group: keep for group, keep in random_keeps(decided, seed=3).items() if group not in flagged
    }
    net, _ = made(name)
    keep = decided.groups.keep(decided.removed())
    with torch.no_grad():
        for tensor, axes in keep.items():
            for axis, kept in axes.items():
                if IN in decided.groups.flow.roles.get(Slot(tensor, axis), ()):
                    weight = net.get_parameter(tensor)
                    gone = mask(weight.shape[axis], kept).nonzero().reshape(-1)
                    weight.index_fill_(axis, gone, 0.0)
    x = torch.randn(3, *IMAGE)
    small = decided.apply()
    with torch.no_grad():
        left, right = net(x), small(x)
    for a, b in zip(*(o.values() if isinstance(o, dict) else [o] for o in (left, right)), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["Residual", "Dense", "Flatten", "Depthwise", "Shuffle"])
def test_the_proof_sees_a_channel_that_is_read_at_the_wrong_index(name):
    """Shift the labels of one consumer by one: sizes still fit, the result is wrong, and the proof says so."""
    decided = copy.copy(captured(name))
    groups = decided.groups
    slot = next(slot for group in groups.groups for slot in group.slots(IN) if len(group) > 3)
    of = groups.components.of.clone()
    labels = groups.flow.labels.slots[slot]
    of[labels] = of[labels].roll(1)
    shifted = type(groups.components)(of, groups.components.reasons)
    decided.groups = type(groups)(groups.groups, groups.frozen, shifted, groups.flow, groups.aliases)
    group = next(group for group in groups.groups if slot in group.members)
    decided.keeps = {group.name: mask(len(group), [1])}
    assert decided.verify() > 1e-3


@pytest.mark.parametrize("name", NETS)
def test_nothing_that_survives_is_empty(name):
    decided = captured(name)
    decided.keeps = {
        group.name: mask(len(group), list(range(1, len(group)))) for group in decided.groups.groups
    }
    assert decided.verify() < EXACT
    assert all(row["after"] >= 1 for row in decided.layers)
