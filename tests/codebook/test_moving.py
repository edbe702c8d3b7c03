"""Weights that move while they are shared: the nearest value forward, the gradient straight through, means afterwards."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lianzhi.codebook.masks import weights_of
from lianzhi.codebook.moving import Moving, follow
from lianzhi.codebook.sharing import bake, is_shared, share
from lianzhi.errors import DataError, GraphError


def net(kept: float = 0.5) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        model[0].weight[torch.rand(8, 12) >= kept] = 0.0
    return model


def nearest(weight: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return np.abs(weight[..., None] - centroids).argmin(-1)


@pytest.mark.parametrize("groups", [1, 3])
def test_the_model_computes_with_the_nearest_values(groups):
    model = net()
    dense = weights_of(model)["0.weight"].detach().numpy().copy()
    share(model, 2, moving=True, groups=groups)
    book = model[0].parametrizations.weight[0]
    expected = [
        np.where(part == 0, 0, table.numpy()[nearest(part, table.numpy())])
        for part, table in zip(np.array_split(dense, groups), book._tables(), strict=True)
    ]
    assert np.array_equal(model[0].weight.detach().numpy(), np.concatenate(expected))


def test_the_gradient_of_a_value_is_that_of_each_weight_and_zeros_have_none():
    moving = net()
    share(moving, 2, moving=True)
    plain = copy.deepcopy(moving)
    bake(plain)
    x = torch.randn(16, 12)
    for model in (moving, plain):
        model(x).square().mean().backward()
    expected = torch.where(plain[0].weight == 0, 0, plain[0].weight.grad)
    assert torch.equal(moving[0].parametrizations.weight.original.grad, expected)


@pytest.mark.parametrize("kept", [0.2, 0.7, 1.0])
def test_centroids_follow_their_weights(kept):
    model = net(kept)
    share(model, 2, moving=True)
    book, weight = model[0].parametrizations.weight[0], model[0].parametrizations.weight.original
    with torch.no_grad():
        weight.add_(0.1 * torch.randn(8, 12) * book.filled)
    values, centroids = weight.detach().numpy()[book.filled.numpy()], book.centroids_0.numpy().copy()
    codes = nearest(values, centroids)
    expected = [
        values[codes == code].mean() if (codes == code).any() else centroids[code] for code in range(3)
    ]
    follow(model)
    assert np.allclose(book.centroids_0.numpy(), np.sort(expected), atol=1e-6)


@pytest.mark.parametrize("kept", [0.2, 0.9])
def test_the_order_in_memory_does_not_matter(kept):
    weight = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(1))
    weight[torch.rand(weight.shape) >= kept] = 0.0
    found = []
    for order in (torch.contiguous_format, torch.channels_last):
        model = nn.Conv2d(5, 6, 3)
        model.weight.data = weight.clone(memory_format=order)
        share(model, 2, moving=True)
        model.parametrizations.weight.original.data.mul_(weight + 2)
        follow(model)
        found.append(model.weight.detach())
    assert torch.equal(*found)


@pytest.mark.parametrize("kept", [0.2, 1.0])
def test_weights_that_became_no_numbers_are_refused(kept):
    model = net(kept)
    share(model, 2, moving=True)
    with torch.no_grad():
        model[0].parametrizations.weight.original[model[0].weight != 0] = torch.nan
    with pytest.raises(DataError, match=r"(\d+) of \1 values are NaN"):
        follow(model)


def test_training_moves_weights_to_other_values_and_learns_more_than_the_values_alone():
    """Few values of a random net can hardly fit a function; weights that change values can."""
    torch.manual_seed(1)
    x = torch.randn(256, 12)
    y = x[:, :3].sin()
    losses = {}
    for moving in (False, True):
        model = net()
        share(model, 2, moving=moving)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(150):
            optimizer.zero_grad()
            loss = (model(x) - y).square().mean()
            loss.backward()
            optimizer.step()
            if moving:
                follow(model)
        losses[moving] = loss.item()
        zeros = net()[0].weight == 0
        bake(model)
        assert not is_shared(model)
        assert not model[0].weight[zeros].any()
        assert len(model[0].weight.unique()) <= 4
    assert losses[True] < 0.8 * losses[False]


def test_after_moving_the_values_are_shared_as_they_are():
    model = net()
    share(model, 3, moving=True)
    with pytest.raises(GraphError, match="shared already"):
        share(model, 3)
    bake(model)
    before = {name: weight.detach().clone() for name, weight in weights_of(model).items()}
    share(model, 3)
    bake(model)
    assert all(torch.equal(before[name], weight) for name, weight in weights_of(model).items())


def test_a_tied_weight_moves_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    share(model, 2, moving=True)
    assert [tuple(parameter.shape) for parameter in model.parameters()] == [(4,), (4, 4), (4,)]
    bake(model)
    assert model[0].weight is model[1].weight


def test_a_layer_of_zeros_stays_so_and_other_types_keep_theirs():
    empty = Moving(torch.zeros(2, 3), [torch.zeros(0)])
    assert torch.equal(empty(torch.zeros(2, 3)), torch.zeros(2, 3))
    empty.follow(torch.zeros(2, 3))
    half = Moving(torch.ones(2, 3).half(), [torch.ones(1)])
    assert half(torch.ones(2, 3).half()).dtype == torch.float16


def test_what_is_zero_is_that_of_the_checkpoint_that_was_loaded_last():
    model, other = net(0.5), net(0.5)
    with torch.no_grad():
        other[0].weight.copy_(other[0].weight.flip(0))
    for each in (model, other):
        share(each, 2, moving=True)
        each(torch.ones(1, 12))
        follow(each)
    model.load_state_dict(other.state_dict())
    assert torch.equal(model[0].weight, other[0].weight)
    for each in (model, other):
        with torch.no_grad():
            each[0].parametrizations.weight.original.mul_(1.5)
        follow(each)
    assert torch.equal(model[0].weight, other[0].weight)


def test_training_goes_on_after_an_evaluation_without_gradients():
    model = net()
    share(model, 2, moving=True)
    with torch.inference_mode():
        model(torch.ones(1, 12))
    model(torch.ones(1, 12)).sum().backward()
    assert model[0].parametrizations.weight.original.grad.any()


def test_a_copy_and_a_model_of_another_type_move_by_themselves():
    model = net()
    share(model, 2, moving=True)
    follow(model)
    before = model[0].weight.detach()
    twin = copy.deepcopy(model).double()
    for each in (twin, model):
        with torch.no_grad():
            each[0].parametrizations.weight.original.mul_(1.5)
        follow(each)
        if each is twin:
            assert torch.equal(model[0].weight, before)
    assert twin[0].weight.dtype == torch.float64
    assert torch.allclose(twin[0].weight.float(), model[0].weight, rtol=1e-6)
