"""Criteria that read data: against autograd sample by sample and hooks on the module; and data that will not do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_cnn import IMAGE, Stream, batches, captured, loss, scores_of, small_cnn
from torch import nn

from lianzhi.errors import DataError, RecipeError
from lianzhi.prune import needs, plan


@pytest.fixture(scope="module")
def nets():
    torch.manual_seed(0)
    return [small_cnn(), Stream().eval()]


def slices(name, tensor):
    """(group, axis, index of the first unit's slice, size of a slice) by hand, for the two networks."""
    own, reads = {
        "conv1": ("conv1", None), "bn1": ("conv1", None), "conv2": ("conv2", ("conv1", 1)), "bn2": ("conv2", None),
        "fc1": ("fc1", ("conv2", 4)), "fc2": (None, ("fc1", 1)),
        "stem": ("stem", None), "norm": ("stem", None), "a": ("a", ("stem", 1)), "b": ("stem", ("a", 1)),
        "c": ("stem", ("stem", 1)), "head": (None, ("stem", 1)),
    }[name]  # fmt: skip
    if own:
        yield own, 0, 1, "producers"
    if reads and tensor.dim() > 1:
        yield reads[0], 1, reads[1], "consumers"


def unit_sums(net, values, over):
    """Sum {parameter: tensor} over the slices of each unit: {group: (units,)}."""
    total = {}
    for name, value in values.items():
        for group, axis, block, kind in slices(name.split(".")[0], value):
            if over in ("group", kind):
                small = value.double().movedim(axis, 0)
                sums = small.reshape(small.shape[0] // block, -1).sum(1)
                total[group] = total.get(group, 0) + sums
    return total


def gradients(net, images, labels):
    net.zero_grad()
    loss(net(images), labels).backward()
    found = {name: parameter.grad.clone() for name, parameter in net.named_parameters()}
    net.zero_grad()
    return found


@pytest.mark.parametrize("over", ["group", "producers", "consumers"])
@pytest.mark.parametrize("which", [0, 1])
def test_taylor_by_hand(nets, which, over):
    net, rows = nets[which], []
    for images, labels in batches():
        grads = gradients(net, images, labels)
        rows.append(unit_sums(net, {n: p.detach() * grads[n] for n, p in net.named_parameters()}, over))
    found = scores_of(net, "taylor", over=over)
    assert found.keys() == rows[0].keys()
    for group, values in found.items():
        expected = sum(row[group].abs() for row in rows) / len(rows)
        np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-6, err_msg=group)


@pytest.mark.parametrize("over", ["group", "producers", "consumers"])
@pytest.mark.parametrize("which", [0, 1])
def test_hessian_sample_by_sample(nets, which, over):
    net, squares, count = nets[which], {}, 0
    for images, labels in batches():
        for image, label in zip(images, labels, strict=True):
            count += 1
            for name, grad in gradients(net, image[None], label[None]).items():
                squares[name] = squares.get(name, 0) + grad.double() ** 2
    fisher = {n: squares[n] / count * p.detach().double() ** 2 for n, p in net.named_parameters()}
    found = scores_of(net, "hessian", over=over)
    for group, expected in unit_sums(net, fisher, over).items():
        np.testing.assert_allclose(found[group], 0.5 * expected, rtol=1e-3, err_msg=group)


def test_consumers_alone_are_the_derivative_by_a_gate(nets):
    """What the docstring of `taylor` promises."""
    net = nets[0]
    images, labels = batches(1)[0]
    gate = torch.ones(6, requires_grad=True)
    handle = net.bn1.register_forward_hook(lambda module, inputs, output: output * gate[:, None, None])
    # the gate stands before ReLU and max pooling, which a positive factor passes through
    value = loss(net(images), labels)
    handle.remove()
    (slope,) = torch.autograd.grad(value, [gate])
    found = scores_of(net, "taylor", pairs=[(images, labels)], over="consumers")["conv1"]
    np.testing.assert_allclose(found, slope.abs(), rtol=1e-3, atol=1e-6)


def test_activations_against_hooks(nets):
    net, seen = nets[0], {}
    seen = {"conv1": [], "conv2": [], "fc1": []}
    handles = [
        module.register_forward_hook(lambda m, i, out, name=name: seen[name].append(F.relu(out)))
        for name, module in (("conv1", net.bn1), ("conv2", net.bn2), ("fc1", net.fc1))
    ]
    with torch.no_grad():
        for images, _ in batches():
            net(images)
    for handle in handles:
        handle.remove()
    dead, size = scores_of(net, "apoz"), scores_of(net, "mean_activation")
    for name, parts in seen.items():
        maps = torch.cat(parts).double().movedim(1, 0).flatten(1)
        np.testing.assert_allclose(dead[name], (maps > 0).double().mean(1), rtol=1e-9)
        np.testing.assert_allclose(size[name], maps.mean(1), rtol=1e-5)
        assert 0 <= dead[name].min() < dead[name].max() <= 1


class TokensFirst(nn.Module):
    """Tokens come before the batch inside: the first dimension of the activation is not the batch."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.down(F.relu(self.up(x[:, 0].transpose(0, 1))))


def test_activations_are_means_where_the_batch_is_not_first():
    net = TokensFirst().eval()
    images = [torch.randn(count, 3, 8, 8) for count in (4, 1)]
    maps = F.relu(net.up(torch.cat([image[:, 0] for image in images]))).detach().flatten(0, 1).double()
    pairs = [(image, None) for image in images]
    np.testing.assert_allclose(scores_of(net, "apoz", pairs=pairs)["up"], (maps > 0).double().mean(0))
    found = scores_of(net, "mean_activation", pairs=pairs)["up"]
    np.testing.assert_allclose(found, maps.mean(0), rtol=1e-6)


GOOD = batches(1)
NAN = [(torch.full((2, 3, 8, 8), float("nan")), torch.tensor([0, 1]))]
WRONG = [(torch.zeros(2, 4, 8, 8), torch.tensor([0, 1]))]


@pytest.mark.parametrize(
    ("criterion", "data", "error", "message"),
    [
        ("apoz", {}, RecipeError, "'apoz' needs calibration=…, an iterable of batches"),
        ("taylor", {}, RecipeError, r"'taylor' needs calibration=…, an iterable of \(batch, labels\)"),
        ("taylor", {"calibration": GOOD}, RecipeError, "'taylor' needs loss="),
        ("hessian", {"calibration": GOOD}, RecipeError, "'hessian' needs loss="),
        ("apoz", {"calibration": [IMAGE], "loss": loss}, RecipeError, "leave out loss"),
        ("l1", {"loss": loss}, RecipeError, "reads no data"),
        ("apoz", {"calibration": IMAGE}, RecipeError, "calibration is a Tensor"),
        ("apoz", {"calibration": 5}, RecipeError, "calibration is a int"),
        ("taylor", {"calibration": GOOD, "loss": 5}, RecipeError, "needs loss=.*, not a int"),
        (
            "taylor",
            {"calibration": [(GOOD[0][0], torch.full((len(GOOD[0][0]),), 99))], "loss": loss},
            DataError,
            "batch 0: loss.outputs, labels. fails on what the model gives .*out of bounds",
        ),
        ("apoz", {"calibration": []}, DataError, "no batches"),
        ("apoz", {"calibration": [torch.zeros(0, 3, 8, 8)]}, DataError, "at least one sample"),
        ("taylor", {"calibration": [], "loss": loss}, DataError, "no batches"),
        ("hessian", {"calibration": [], "loss": loss}, DataError, "no batches"),
        ("apoz", {"calibration": ["x"]}, DataError, "batch 0 is a str"),
        (
            "apoz",
            {"calibration": [GOOD[0][0], NAN[0][0]]},
            DataError,
            "batch 1: '.*' gives values that are not",
        ),
        ("taylor", {"calibration": NAN, "loss": loss}, DataError, "batch 0: the loss is nan"),
        ("hessian", {"calibration": NAN, "loss": loss}, DataError, "batch 0: the loss is nan"),
        ("apoz", {"calibration": [WRONG[0][0]]}, DataError, "batch 0 does not run through the model"),
        ("taylor", {"calibration": WRONG, "loss": loss}, DataError, "batch 0 does not run through the model"),
        (
            "hessian",
            {"calibration": WRONG, "loss": loss},
            DataError,
            "batch 0 does not run through the model",
        ),
        ("taylor", {"calibration": [GOOD[0][0]], "loss": loss}, DataError, "batch 0 has no labels"),
        ("taylor", {"calibration": GOOD, "loss": lambda outputs, labels: 1.0}, RecipeError, "one number"),
        ("taylor", {"calibration": GOOD, "loss": lambda outputs, labels: outputs}, RecipeError, "one number"),
    ],
)
def test_data_that_will_not_do(nets, monkeypatch, criterion, data, error, message):
    monkeypatch.setattr("lianzhi.prune.scoring.capture", lambda net, image: captured(net)[0])
    with pytest.raises(error, match=message):
        plan(nets[0], IMAGE, ratio=0.5, criterion=criterion, **data)


def test_an_error_reads_as_a_sentence(nets):
    with pytest.raises(DataError) as caught:
        plan(nets[0], IMAGE, ratio=0.5, criterion="apoz", calibration=[WRONG[0][0]])
    assert "['" not in str(caught.value)


class Tokens(nn.Module):
    """Tokens with positions: its capture is of the length of its example."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(20, 12), nn.Parameter(torch.randn(1, 16, 12))
        self.up, self.down, self.head = nn.Linear(12, 10), nn.Linear(10, 12), nn.Linear(12, 3)

    def hidden(self, tokens):
        return torch.relu(self.up(self.words(tokens) + self.places[:, : tokens.shape[1]]))

    def forward(self, tokens):
        return self.head(self.down(self.hidden(tokens)).mean(1))


def sentences():
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randint(0, 20, (count, length), generator=generator),
            torch.randint(0, 3, (count,), generator=generator),
        )
        for count, length in ((4, 5), (2, 9), (4, 6), (3, 9))
    ]


def test_batches_of_other_lengths_than_the_example():
    """A text task pads each batch to its own length."""
    torch.manual_seed(0)
    net, given = Tokens().eval(), {}

    def keep(view):
        found = view.activations if name == "activations" else view.gradients()
        given.setdefault(name, {})[view.group.name] = found
        return torch.ones(len(view))

    for name, more in (("activations", {}), ("gradients", {"loss": F.cross_entropy})):
        data = [tokens for tokens, _ in sentences()] if name == "activations" else sentences()
        criterion = needs(name)(keep)
        plan(net, sentences()[2][0], ratio=0.3, criterion=criterion, calibration=data, **more)

    with torch.no_grad():
        means = [net.hidden(tokens).mean((0, 1)) * len(tokens) for tokens, _ in sentences()]
    (seen,) = given["activations"]["up"]
    assert torch.allclose(seen.magnitude.float(), sum(means) / 13, atol=1e-6)
    products = []
    for tokens, labels in sentences():
        net.zero_grad()
        F.cross_entropy(net(tokens), labels).backward()
        unit = (net.up.weight * net.up.weight.grad).sum(1) + net.up.bias * net.up.bias.grad
        products.append((unit + (net.down.weight * net.down.weight.grad).sum(0)).detach())
    assert torch.allclose(sum(given["gradients"]["up"]).float(), torch.stack(products), atol=1e-6)
