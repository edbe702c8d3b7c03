"""Criteria on weights against NumPy, on a small CNN and on a group that several layers give; and their symmetry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_cnn import IMAGE, NAMES, Stream, arrays, captured, data_for, loss, scores_of, small_cnn
from torch import nn

from lianzhi.graph import get_tensor
from lianzhi.prune import plan


@pytest.fixture(scope="module")
def cnn():
    """Nobody changes it."""
    return small_cnn()


@pytest.fixture(scope="module")
def stream():
    torch.manual_seed(0)
    net = Stream().eval()
    nn.init.normal_(net.norm.weight)
    return net


@pytest.fixture(scope="module")
def twin(cnn):
    """The CNN with the units of every group in another order, and the orders."""
    return permuted(cnn, 3)


def flat(weight):
    return weight.reshape(len(weight), -1)


def fpgm(weight):
    rows = flat(weight)
    return np.array([sum(np.sqrt(((row - other) ** 2).sum()) for other in rows) for row in rows])


def lamp(squares):
    return np.array([value / sum(other for other in squares if other >= value) for value in squares])


def greedy(rows):
    """Remove the weaker of the two closest, over and over; the distance at which each went."""
    left, scores = list(range(len(rows))), np.zeros(len(rows))
    while len(left) > 1:
        distance, i, j = min(
            (np.sqrt(((rows[i] - rows[j]) ** 2).sum()), i, j) for i in left for j in left if i < j
        )
        weaker = i if np.linalg.norm(rows[i]) <= np.linalg.norm(rows[j]) else j
        scores[weaker] = max(distance, scores.max())
        left.remove(weaker)
    scores[left[0]] = scores.max()
    return scores


BY_WEIGHT = {
    "l1": lambda w: np.abs(flat(w)).sum(1),
    "l2": lambda w: np.sqrt((flat(w) ** 2).sum(1)),
    "fpgm": fpgm,
}
BY_CONVOLUTION = {
    "conv_all": lambda w: np.abs(flat(w)).sum(1),
    "conv_avg": lambda w: np.abs(flat(w)).sum(1) / flat(w).shape[1],
    "conv_max": lambda w: np.sort(np.abs(flat(w)), 1)[:, -1],
    "conv_threshold": lambda w: np.array([sum(abs(value) >= 0.06 for value in row) for row in flat(w)]),
    "conv_similarity": lambda w: greedy(flat(w)),
}
BY_SCALE = {"bn_scale": np.abs, "bn_similarity": lambda scale: greedy(flat(scale))}


@pytest.mark.parametrize("name", [*BY_WEIGHT, *BY_CONVOLUTION, *BY_SCALE, "neuron", "lamp"])
def test_a_small_cnn(cnn, name):
    own, found = arrays(cnn), scores_of(cnn, name)
    if name in BY_WEIGHT:
        expected = {layer: BY_WEIGHT[name](own[f"{layer}.weight"]) for layer in ("conv1", "conv2", "fc1")}
    elif name in BY_CONVOLUTION:
        expected = {layer: BY_CONVOLUTION[name](own[f"{layer}.weight"]) for layer in ("conv1", "conv2")}
    elif name in BY_SCALE:
        expected = {f"conv{n}": BY_SCALE[name](own[f"bn{n}.weight"]) for n in (1, 2)}
    elif name == "neuron":
        expected = {"fc1": np.abs(own["fc1.weight"]).sum(1) / 32}
    else:
        expected = {
            layer: lamp((flat(own[f"{layer}.weight"]) ** 2).sum(1)) for layer in ("conv1", "conv2", "fc1")
        }
    assert found.keys() == expected.keys()
    for group, values in expected.items():
        np.testing.assert_allclose(found[group], values, rtol=1e-6, err_msg=group)


@pytest.mark.parametrize("name", [*BY_WEIGHT, *BY_CONVOLUTION, *BY_SCALE, "lamp"])
@pytest.mark.parametrize("how", ["mean", "sum", "max", "first"])
def test_a_group_that_three_layers_give(stream, name, how):
    """A residual stream: stem, b and c give it, one BatchNorm follows stem."""
    own = arrays(stream)
    layers = [own[f"{layer}.weight"] for layer in ("stem", "b", "c")]
    put_together = {
        "mean": lambda rows: rows.mean(0), "sum": lambda rows: rows.sum(0),
        "max": lambda rows: rows.max(0), "first": lambda rows: rows[0],
    }[how]  # fmt: skip
    if name == "lamp":  # one score for the unit, over all its producers
        expected = lamp(sum((flat(weight) ** 2).sum(1) for weight in layers))
    elif name in BY_SCALE:
        expected = BY_SCALE[name](own["norm.weight"])
    else:
        measure = {**BY_WEIGHT, **BY_CONVOLUTION}[name]
        expected = put_together(np.stack([measure(weight) for weight in layers]))
    np.testing.assert_allclose(scores_of(stream, name, aggregate=how)["stem"], expected, rtol=1e-6)


def test_the_options(cnn):
    net = cnn
    weight = flat(arrays(net)["conv2.weight"])
    per_weight = scores_of(net, "l1", per_weight=True)["conv2"]
    np.testing.assert_allclose(per_weight, np.abs(weight).mean(1))
    np.testing.assert_allclose(
        scores_of(net, "l2", per_weight=True)["conv2"], np.sqrt((weight**2).mean(1)), rtol=1e-6
    )
    limit = np.sort(np.abs(weight).reshape(-1))[round(0.7 * weight.size) - 1]
    np.testing.assert_array_equal(
        scores_of(net, "conv_threshold", quantile=0.7)["conv2"], (np.abs(weight) >= limit).sum(1)
    )
    np.testing.assert_array_equal(
        scores_of(net, "conv_threshold", threshold=0.1)["conv2"], (np.abs(weight) >= 0.1).sum(1)
    )


def test_a_weight_that_equals_the_threshold_counts():
    net = small_cnn()
    with torch.no_grad():
        net.conv2.weight.fill_(0.06)  # in float32 a little less than 0.06 in float64
    assert scores_of(net, "conv_threshold")["conv2"].tolist() == [54.0] * 8


def test_conv_threshold_removes_the_filters_with_many_small_weights():
    net = small_cnn()
    small = torch.zeros(8, dtype=torch.bool)
    small[[1, 4, 6]] = True
    with torch.no_grad():
        net.conv2.weight.copy_(torch.where(small[:, None, None, None], 0.01, 0.2).expand(8, 6, 3, 3))
        net.conv2.weight[1, 0, 0, 0] = 50.0  # one large weight among many small ones does not save it
    decided = plan(
        net, IMAGE, ratio=3 / 8, scope="layer", criterion="conv_threshold", ignore=["conv1", "fc1"]
    )
    assert torch.equal(decided.keeps["conv2"], ~small)


@pytest.mark.parametrize("how", ["mean", "max", "standard"])
def test_normalisation_of_negative_scores_keeps_their_order_and_size(cnn, how):
    values = {
        "conv1": torch.tensor([-4.0, -1, -3, -2, -6, -5]),
        "conv2": -torch.arange(8.0),
        "fc1": -torch.ones(10),
    }
    found = scores_of(cnn, lambda view: values[view.group.name], normalize=how)
    for name, given in values.items():
        assert np.array_equal(
            np.argsort(found[name], kind="stable"), np.argsort(given.numpy(), kind="stable")
        )
        assert np.abs(found[name]).max() < 10


def permuted(net, seed):
    """The net with the units of every group in another order; the order of each."""
    generator = torch.Generator().manual_seed(seed)
    state, orders = net.state_dict(), {}
    for group in captured(net)[1].groups:
        order = torch.randperm(len(group), generator=generator)
        orders[group.name] = order.numpy()
        for slot, members in group.members.items():
            source = state[slot.tensor].index_select(slot.axis, members[order].reshape(-1))
            state[slot.tensor] = state[slot.tensor].index_copy(slot.axis, members.reshape(-1), source)
    other = type(net)().eval()
    other.load_state_dict(state)
    return other, orders


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"random"}))
def test_permuting_channels_permutes_scores(cnn, twin, name):
    other, orders = twin
    pixels = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(cnn(pixels), other(pixels), atol=1e-5, rtol=1e-4)
    before, after = scores_of(cnn, name), scores_of(other, name)
    assert before.keys() == after.keys()
    for group, values in before.items():
        np.testing.assert_allclose(after[group], values[orders[group]], rtol=2e-4, atol=1e-7, err_msg=group)
        assert len(set(np.round(values, 9))) > 1, "a constant would pass"


@pytest.mark.parametrize("name", NAMES)
def test_every_criterion_plans_and_its_surgery_is_exact(cnn, name):
    net = cnn
    state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    decided = plan(net, IMAGE, ratio=0.4, scope="layer", criterion=name, **data_for(name))
    assert decided.verify() < 1e-5
    small = decided.apply()
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.parameters())
    assert small(torch.randn(2, 3, 8, 8)).shape == (2, 5)
    assert all(torch.equal(state[key], tensor) for key, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert get_tensor(small, "fc2.weight").requires_grad
    assert loss(small(torch.randn(2, 3, 8, 8)), torch.tensor([0, 1])).isfinite()


def test_path_norm(cnn):
    """γ² where a BatchNorm follows, the filter's own square where none does, times what reads the channel."""
    own, found = arrays(cnn), scores_of(cnn, "path_norm")
    square = {name: (value**2) for name, value in own.items()}
    read = {"conv1": square["conv2.weight"].sum((0, 2, 3)), "fc1": square["fc2.weight"].sum(0)}
    np.testing.assert_allclose(found["conv1"], square["bn1.weight"] * read["conv1"], rtol=1e-6)
    np.testing.assert_allclose(found["fc1"], flat(square["fc1.weight"]).sum(1) * read["fc1"], rtol=1e-6)


def test_path_norm_does_not_change_when_a_channel_is_rescaled(cnn):
    before = scores_of(cnn, "path_norm")
    with torch.no_grad():
        cnn.bn1.weight[0], cnn.bn1.bias[0] = 8 * cnn.bn1.weight[0], 8 * cnn.bn1.bias[0]
        cnn.conv2.weight[:, 0] /= 8
        cnn.conv1.weight[1] *= 50  # BatchNorm takes it out again
    after = scores_of(cnn, "path_norm")
    np.testing.assert_allclose(after["conv1"], before["conv1"], rtol=1e-6)
