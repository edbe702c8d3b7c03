"""Masks: exact counts, one threshold for all layers, and zeros that stay zero whatever the optimizer does."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lianzhi.codebook.allocation import masks_for
from lianzhi.codebook.masks import (
    Masks,
    each_mask,
    global_masks,
    held,
    magnitude_mask,
    threshold_mask,
    two_of_four_mask,
    weights_of,
)
from lianzhi.errors import DataError, GraphError, RecipeError
from lianzhi.train import TrainOptions, optimizers

OPTIMIZERS = ["sgd", "adam", "adamw", "rmsprop", "lamb"]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 5))


def train(model: nn.Module, masks: Masks, optimizer: torch.optim.Optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 1, 8, 8, generator=generator)).square().mean().backward()
        optimizer.step()
        masks.apply_(model)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([0.0, -1.0, 1.0, 0.5, -2.0, 3.25]), min_size=1, max_size=40), st.floats(0, 1))
def test_exactly_as_many_are_removed_and_they_are_the_smallest(values, sparsity):
    tensor = torch.tensor(values)
    mask = magnitude_mask(tensor, sparsity)
    assert int((~mask).sum()) == round(sparsity * len(values))
    if mask.any() and not mask.all():
        assert tensor[~mask].abs().max() <= tensor[mask].abs().min()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_any_float_and_any_layout(dtype):
    tensor = torch.randn(4, 3, 5, 5).to(dtype)
    mask = magnitude_mask(tensor.to(memory_format=torch.channels_last), 0.3)
    assert int((~mask).sum()) == 90
    assert torch.equal(mask, magnitude_mask(tensor, 0.3))


def test_empty_and_whole():
    assert magnitude_mask(torch.zeros(0, 3), 0.5).shape == (0, 3)
    assert not magnitude_mask(torch.ones(3), 1.0).any()
    assert magnitude_mask(torch.ones(3), 0.0).all()
    assert magnitude_mask(torch.tensor(2.0), 0.2).item() is True


def test_one_threshold_for_all_layers():
    tensors = {"a": torch.tensor([[0.1, 5.0]]), "b": torch.tensor([0.2, 0.3, 4.0])}
    masks = global_masks(tensors, 0.6)
    assert masks["a"].tolist() == [[False, True]]
    assert masks["b"].tolist() == [False, False, True]


def test_quality_times_the_deviation_of_what_is_left():
    weight = torch.cat([torch.randn(10_000, generator=torch.Generator().manual_seed(0)), torch.zeros(10_000)])
    kept = threshold_mask(weight, 1.0).float().mean()
    assert abs(kept - 0.5 * 0.3173) < 0.01
    assert threshold_mask(torch.zeros(3), 1.0).tolist() == [False] * 3


def test_what_is_pruned_is_weights_and_not_biases_or_norms():
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3), nn.Embedding(4, 2), nn.Linear(2, 2))
    assert list(weights_of(model)) == ["0.weight", "2.weight", "3.weight"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_removed_weights_are_exactly_zero_through_every_optimizer(name):
    model = net()
    options = TrainOptions(optimizer=name, lr=0.01, weight_decay=0.1)
    optimizer = optimizers.optimizer(model, options)
    free = Masks(model, {})
    train(model, free, optimizer, 5)  # momentum gathers before anything is removed
    masks = Masks(model, {key: magnitude_mask(weight, 0.8) for key, weight in weights_of(model).items()})
    before = {key: weight.detach().clone() for key, weight in weights_of(model).items()}
    train(model, masks, optimizer, 5)
    for key, weight in weights_of(model).items():
        mask = masks.masks[key]
        assert not bool(weight[~mask].any()), key
        assert not torch.equal(weight[mask], before[key][mask]), "what is left trains"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nothing_is_gathered_for_removed_weights(name):
    model = net()
    masks = Masks(model, {key: magnitude_mask(weight, 0.8) for key, weight in weights_of(model).items()})
    optimizer = optimizers.optimizer(model, TrainOptions(optimizer=name, lr=0.01, weight_decay=0.1))
    train(model, masks, optimizer, 5)
    for key, weight in weights_of(model).items():
        moments = [value for value in optimizer.state[weight].values() if value.shape == weight.shape]
        assert moments
        for moment in moments:
            assert not bool(moment[~masks.masks[key]].any()), (name, key)


def test_infinite_gradients_of_removed_weights_are_zero_too():
    layer = nn.Linear(2, 1, bias=False)
    masks = Masks(layer, {"weight": torch.tensor([[True, False]])})
    layer(torch.tensor([[1.0, float("inf")]])).nan_to_num(0).sum().backward()
    (layer.weight * torch.tensor([[1.0, float("inf")]])).nansum().backward()
    assert layer.weight.grad[0, 1] == 0
    masks.release()


def test_released_masks_let_gradients_through():
    layer = nn.Linear(2, 1, bias=False)
    Masks(layer, {"weight": torch.tensor([[True, False]])}).release()
    layer(torch.ones(1, 2)).sum().backward()
    assert layer.weight.grad.tolist() == [[1.0, 1.0]]


def test_held_keeps_the_zeros_that_are_there():
    model = net()
    with torch.no_grad():
        model[3].weight[:, ::2] = 0.0
    masks = held(model)
    optimizer = optimizers.optimizer(model, TrainOptions(lr=0.1))
    train(model, masks, optimizer, 3)
    assert not model[3].weight[:, ::2].any()
    assert model[3].weight[:, 1::2].all()


@pytest.mark.parametrize("shape", [(5, 12), (3, 8, 2, 3), (4, 4, 1)])
def test_two_of_every_four_inputs_stay(shape):
    """By hand: sort each four along the second dimension."""
    weight = torch.randn(shape)
    mask = two_of_four_mask(weight).numpy()
    size = np.abs(weight.numpy())
    for place in np.ndindex(shape[0], shape[1] // 4, *shape[2:]):
        four = (place[0], slice(4 * place[1], 4 * place[1] + 4), *place[2:])
        assert mask[four].sum() == 2
        assert size[four][mask[four]].min() > size[four][~mask[four]].max()


def test_what_is_no_multiple_of_four_stays_whole():
    assert bool(two_of_four_mask(torch.zeros(2, 3)).all())
    assert bool(two_of_four_mask(torch.zeros(8)).all())
    assert two_of_four_mask(torch.zeros(1, 4)).tolist() == [[True, True, False, False]]


def test_bad_calls_are_refused():
    with pytest.raises(RecipeError, match="no share"):
        magnitude_mask(torch.ones(2), 1.5)
    with pytest.raises(RecipeError, match="no share"):
        magnitude_mask(torch.ones(2), float("nan"))
    with pytest.raises(DataError, match="NaN"):
        magnitude_mask(torch.tensor([1.0, float("nan")]), 0.5)
    with pytest.raises(DataError, match="NaN"):
        two_of_four_mask(torch.full((1, 4), float("nan")))
    with pytest.raises(RecipeError, match="below 0"):
        threshold_mask(torch.ones(2), -1.0)
    with pytest.raises(GraphError, match="'waight' is no parameter"):
        Masks(nn.Linear(2, 2), {"waight": torch.ones(2, 2, dtype=torch.bool)})
    with pytest.raises(GraphError, match=r"shape \(2, 2\)"):
        Masks(nn.Linear(2, 2), {"weight": torch.ones(2, 3, dtype=torch.bool)})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_threshold_is_refused_where_weights_are_no_numbers(bad):
    """One of them made the deviation none, and removed the layer whole."""
    weight = torch.randn(4, 4)
    weight[1, 2] = bad
    with pytest.raises(DataError, match="threshold_mask: weights are NaN, infinite"):
        threshold_mask(weight, 0.7)
    weights = {"fc1.weight": torch.randn(4, 4), "fc2.weight": weight}
    for make in (threshold_mask, magnitude_mask):
        with pytest.raises(DataError, match=r"^'fc2\.weight': .*NaN"):
            each_mask(weights, lambda name, one: make(one, 0.7))  # noqa: B023
    with pytest.raises(DataError, match=r"^'fc2\.weight': .*NaN"):
        masks_for(weights, 0.5, "layer")


def test_a_threshold_of_double_numbers_is_computed_in_double():
    small = torch.tensor([1e-50, 1e-49, 3e-49], dtype=torch.float64)
    assert (
        threshold_mask(small, 0.5).tolist()
        == threshold_mask(small * 1e50, 0.5).tolist()
        == [False, True, True]
    )
    with pytest.raises(DataError, match="too large"):
        threshold_mask(torch.tensor([1e200, -1e200], dtype=torch.float64), 0.5)


@pytest.mark.parametrize("scale", [1e-50, 1.0, 1e50])
def test_double_numbers_are_compared_in_double(scale):
    """Those below 1e-45 are zero in float32, and those above 3e38 infinite; these differ by less than float32 shows."""
    weight = scale * (1 + torch.tensor([[3e-12, 4e-12, 1e-12, 2e-12]], dtype=torch.float64))
    larger = [[True, True, False, False]]
    assert magnitude_mask(weight, 0.5).tolist() == two_of_four_mask(weight).tolist() == larger
    assert global_masks({"a": weight}, 0.5)["a"].tolist() == larger


def test_double_numbers_that_are_none_are_refused():
    weight = torch.tensor([[1.0, math.inf, 0.0, 2.0]], dtype=torch.float64)
    for make in (lambda: magnitude_mask(weight, 0.5), lambda: two_of_four_mask(weight)):
        with pytest.raises(DataError, match="weights are NaN or infinite; give"):
            make()
