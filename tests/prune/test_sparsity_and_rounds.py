"""Group lasso and its gradient, schedules in closed form, and plans that are edited."""

from __future__ import annotations

import pytest
import torch
from small_cnn import IMAGE, small_cnn
from torch import nn

from lianzhi.errors import RecipeError
from lianzhi.prune import Plan, channel_slices, group_lasso, plan, shares
from lianzhi.prune.rounds import round_budget


def test_group_lasso_in_closed_form():
    net = small_cnn()
    by_hand = [
        [net.conv1.weight[i], net.conv1.bias[i], net.bn1.weight[i], net.bn1.bias[i], net.conv2.weight[:, i]]
        for i in range(6)
    ] + [
        [net.conv2.weight[i], net.conv2.bias[i], net.bn2.weight[i], net.bn2.bias[i], net.fc1.weight[:, 4 * i : 4 * i + 4]]
        for i in range(8)
    ] + [[net.fc1.weight[i], net.fc1.bias[i], net.fc2.weight[:, i]] for i in range(10)]  # fmt: skip
    expected = sum(torch.cat([part.reshape(-1) for part in unit]).norm() for unit in by_hand)
    slices = channel_slices(net, IMAGE)
    found = group_lasso(slices, 0.25)
    assert found.item() == pytest.approx(0.25 * expected.item(), rel=1e-5)
    found.backward()
    own = [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]
    net.zero_grad()
    (0.25 * expected).backward()
    for mine, theirs in zip(own, [p.grad for p in net.parameters() if p.grad is not None], strict=True):
        torch.testing.assert_close(mine, theirs)
    assert net.fc2.bias.grad is None


def test_the_gradient_of_group_lasso():
    weight = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    reader = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    own, pairs = torch.arange(4)[:, None], torch.arange(8).view(4, 2)

    def penalty(weight, bias, reader):
        return group_lasso([[(weight, 0, own), (bias, 0, own), (reader, 1, pairs)]], 0.7)

    assert torch.autograd.gradcheck(penalty, (weight, bias, reader))


def test_a_unit_of_zeros_has_no_gradient():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight[1], net[0].bias[1], net[2].weight[:, 1] = 0, 0, 0
    group_lasso(channel_slices(net, torch.zeros(1, 3))).backward()
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters() if p.grad is not None)
    assert not net[0].weight.grad[1].any()
    assert not net[2].weight.grad[:, 1].any()
    assert net[0].weight.grad[0].any()


def test_group_lasso_without_groups_is_refused():
    with pytest.raises(RecipeError, match="no channel groups"):
        group_lasso([])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_schedules_in_closed_form(count):
    assert shares(count, "linear") == pytest.approx([(i + 1) / count for i in range(count)])
    cubic = [1 - (1 - (i + 1) / count) ** 3 for i in range(count)]
    assert shares(count) == shares(count, "cubic") == pytest.approx(cubic)
    assert shares(count)[-1] == 1
    for arguments, message in (((0,), "at least 1"), ((2, "cubik"), "did you mean 'cubic'")):
        with pytest.raises(RecipeError, match=message):
            shares(*arguments)


@pytest.mark.parametrize("name", ["ratio", "macs"])
@pytest.mark.parametrize("schedule", ["cubic", "linear"])
def test_rounds_multiply_to_the_whole(name, schedule):
    """Each round meets its budget of what the last one left: the product is the budget of the whole."""
    amount, left = 0.4, 1.0
    for share in shares(4, schedule):
        budget = round_budget(name, amount, share, left)
        left *= 1 - budget if name == "ratio" else budget
        gone = (amount if name == "ratio" else 1 - amount) * share
        assert left == pytest.approx(1 - gone)
    assert left == pytest.approx(1 - amount if name == "ratio" else amount)
    assert round_budget("macs", 0.4, 0.5, 0.6) >= 1, "nothing is left to do"


@pytest.fixture(scope="module")
def decided():
    return plan(small_cnn(), IMAGE, ratio=0.5, scope="layer")


def test_editing_a_plan(decided):
    before = decided.kept
    decided.edit({"conv1": [5, 0], "fc1": torch.tensor([1, 2, 3])})
    assert decided.kept == {**before, "conv1": [0, 5], "fc1": [1, 2, 3]}
    assert decided.verify() < 1e-5
    small = decided.apply()
    assert (small.conv1.out_channels, small.fc1.out_features) == (2, 3)
    torch.testing.assert_close(small.conv1.weight, decided.graph.source.conv1.weight[[0, 5]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv9": [0]}, "no group 'conv9'; did you mean 'conv"),
        ({"fc2": [0]}, "no group 'fc2'; it cannot be pruned: it is the model's output"),
        ({"conv1": []}, "at least one of its channels 0 to 5"),
        ({"conv1": [6]}, "0 to 5"),
        ({"conv1": [1, 1]}, "each named once"),
        ({"conv1": [True]}, "0 to 5"),
        ({"fc1": [0], "conv1": [-1]}, "0 to 5"),
        ({"conv1": 3}, r"0 to 5, .*got 3"),
        ({"conv1": None}, "0 to 5"),
        ({0: [1]}, "no group '0'"),
        ([("conv1", [1])], "a dict of group"),
    ],
)
def test_edits_that_do_not_fit_change_nothing(decided, changes, message):
    before = decided.kept
    with pytest.raises(RecipeError, match=message):
        decided.edit(changes)
    assert decided.kept == before


def test_json_round_trip(decided):
    again = Plan.from_json(decided.to_json(), small_cnn(), IMAGE)
    assert again.kept == decided.kept
    assert again.to_json() == decided.to_json()


def test_what_was_remarked_is_kept_with_the_plan():
    net = small_cnn()
    with torch.no_grad():
        net.conv1.weight.mul_(1e-6)
    found = plan(net, IMAGE, ratio=0.5, ignore=["fc1"])
    assert found.notes
    assert Plan.from_json(found.to_json(), net, IMAGE).notes == found.notes
    found = plan(net, IMAGE, ratio=0.5, criterion="neuron")
    assert ("conv1", "criterion 'neuron' gives it no score") in found.unprunable
    assert Plan.from_json(found.to_json(), net, IMAGE).unprunable == found.unprunable


@pytest.mark.parametrize(
    ("name", "keep"),
    [
        ("conv9", torch.ones(6, dtype=torch.bool)),
        ("conv1", torch.zeros(6, dtype=torch.bool)),
        ("conv1", torch.ones(5, dtype=torch.bool)),
        ("conv1", torch.tensor([0, 1, 1, 1, 1, 1])),
        ("conv1", [0, 1]),
    ],
)
def test_keeps_that_are_set_by_hand_are_checked(name, keep):
    decided = plan(small_cnn(), IMAGE, ratio=0.5, scope="layer")
    decided.keeps[name] = keep
    for use in (decided.apply, decided.verify, lambda: decided.count("macs")):
        with pytest.raises(RecipeError, match=r"no group 'conv9'|keeps\['conv1'\] is a boolean tensor of 6"):
            use()
