"""Surgery against slices that are written out by hand, without the graph's help."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from coupled_nets import made

from lianzhi.prune import Plan, plan


def pruned(name, gone):
    """The net and its pruned self; `gone` gives the channels removed from each group."""
    net, image = made(name)
    decided = plan(net, image, ratio=0.1)
    for group in decided.groups.groups:
        keep = torch.ones(len(group), dtype=torch.bool)
        keep[gone.pop(group.name, [])] = False
        decided.keeps[group.name] = keep
    assert not gone
    return net, decided.apply().eval(), decided


def check(net, small, axes):
    """Every tensor is the original's with these indices removed: name → (axis, indices) pairs."""
    own = small.state_dict()
    for name, tensor in net.state_dict().items():
        for axis, indices in axes.get(name, []):
            stay = [index for index in range(tensor.shape[axis]) if index not in indices]
            tensor = tensor.index_select(axis, torch.tensor(stay))  # noqa: PLW2901
        assert torch.equal(own.pop(name), tensor), name
    assert not own


def test_residual():
    net, small, decided = pruned("Residual", {"stem": [2, 5], "a": [0]})
    both = [2, 5]
    check(
        net,
        small,
        {
            "stem.weight": [(0, both)], "stem.bias": [(0, both)],
            "norm.weight": [(0, both)], "norm.bias": [(0, both)],
            "norm.running_mean": [(0, both)], "norm.running_var": [(0, both)],
            "a.weight": [(0, [0]), (1, both)], "a.bias": [(0, [0])],
            "b.weight": [(0, both), (1, [0])], "b.bias": [(0, both)],
            "c.weight": [(0, both), (1, both)], "c.bias": [(0, both)],
            "head.weight": [(1, both)],
        },
    )  # fmt: skip
    assert decided.result_kind == "plain"
    assert (small.a.in_channels, small.a.out_channels, small.norm.num_features) == (6, 11, 6)
    assert small.head.in_features == 6


def test_flatten_in_nchw_order():
    net, small, decided = pruned("Flatten", {"conv1": [1], "conv2": [0, 3], "fc1": [10]})
    columns = [c * 4 + position for c in (0, 3) for position in range(4)]
    check(
        net,
        small,
        {
            "conv1.weight": [(0, [1])], "conv1.bias": [(0, [1])],
            "conv2.weight": [(0, [0, 3]), (1, [1])], "conv2.bias": [(0, [0, 3])],
            "fc1.weight": [(0, [10]), (1, columns)], "fc1.bias": [(0, [10])],
            "norm.weight": [(0, [10])], "norm.bias": [(0, [10])],
            "norm.running_mean": [(0, [10])], "norm.running_var": [(0, [10])],
            "fc2.weight": [(1, [10])],
        },
    )  # fmt: skip
    assert decided.result_kind == "graph"
    assert "invalid for input" in decided.result_reason


def test_concat_offsets():
    net, small, _ = pruned("Branches", {"a": [3], "b1": [], "b2": [0], "c": [2], "last": []})
    check(
        net,
        small,
        {
            "a.weight": [(0, [3])], "a.bias": [(0, [3])], "b2.weight": [(0, [0])], "b2.bias": [(0, [0])],
            "c.weight": [(0, [2])], "c.bias": [(0, [2])], "last.weight": [(1, [3, 4, 12])],
        },
    )  # fmt: skip


def test_grouped_convolution_loses_whole_groups_or_the_same_position_of_each():
    net, small, decided = pruned("Grouped", {"stem": [0], "few": [1]})
    group = decided.groups.groups[0]
    slot = next(slot for slot in group.members if slot.tensor == "many.weight")
    channels = group.members[slot][0].tolist()
    # unit 0 is position 0 of both groups of `few`: channels 0 and 8 of `many`, hence its groups of two, 0 and 4
    assert channels == [0, 1, 8, 9]
    check(
        net,
        small,
        {
            "stem.weight": [(0, channels)], "stem.bias": [(0, channels)],
            "many.weight": [(0, channels)], "many.bias": [(0, channels)],
            "few.weight": [(0, [1, 7]), (1, [0, 1])], "few.bias": [(0, [1, 7])], "head.weight": [(1, [1, 7])],
        },
    )  # fmt: skip
    assert small.many.groups == 6
    assert small.few.groups == 2


def test_option_a_keeps_the_zeros_beside_the_channels_that_are_left():
    net, small, _ = pruned("OptionA", {"stem": [0, 7], "a": [], "b": [1]})
    # channels of `b`: 2 zeros before, the stem's 8, 4 zeros after; unit 1 of those beside is channel 1
    gone = [1, 2, 9]
    check(
        net,
        small,
        {
            "stem.weight": [(0, [0, 7])], "stem.bias": [(0, [0, 7])], "a.weight": [(1, [0, 7])],
            "b.weight": [(0, gone)], "b.bias": [(0, gone)], "head.weight": [(1, gone)],
        },
    )  # fmt: skip
    x = torch.randn(3, 3, 12, 12)
    y = F.relu(F.conv2d(x, small.stem.weight, small.stem.bias, padding=1))
    z = F.relu(F.conv2d(y, small.a.weight, small.a.bias, stride=2, padding=1))
    z = F.conv2d(z, small.b.weight, small.b.bias, padding=1) + F.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, 1, 4))
    expected = F.linear(F.relu(z).mean((2, 3)), small.head.weight, small.head.bias)
    assert torch.allclose(small(x), expected, atol=1e-5)


def test_tied_weights_stay_tied():
    net, small, _ = pruned("Tied", {"stem": [3]})
    assert small.twin.weight is small.shared.weight
    assert small.twin.weight.shape == (7, 7, 3, 3)
    assert len(list(small.parameters())) == len(list(net.parameters()))


@pytest.mark.parametrize("name", ["Residual", "Shuffle"])
def test_a_plan_replays_to_the_same_bits(name):
    net, image = made(name)
    first = plan(net, image, ratio=0.4, criterion="random")
    again = Plan.from_json(first.to_json(), net, image)
    left, right = first.apply(), again.apply()
    assert {k: v.tolist() for k, v in left.state_dict().items()} == {
        k: v.tolist() for k, v in right.state_dict().items()
    }
    assert torch.equal(left(image), right(image))
    assert again.to_json() == first.to_json()
