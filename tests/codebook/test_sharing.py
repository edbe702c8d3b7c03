"""Weight sharing: few values, zero stays zero, a centroid's gradient is a sum, and the optimizer's state is a centroid's."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lianzhi.codebook.lookup import lookup, rows_by_code, sum_rows
from lianzhi.codebook.masks import held
from lianzhi.codebook.sharing import bake, codebook, is_shared, share, share_values
from lianzhi.errors import DataError, GraphError, RecipeError
from lianzhi.train import TrainOptions, optimizers


def net() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6 * 36, 5))
    with torch.no_grad():
        for index in (0, 3):
            model[index].weight[torch.rand_like(model[index].weight) < 0.5] = 0.0
    return model


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 300), st.floats(0, 1))
def test_few_values_and_the_same_zeros(bits, groups, size, zeros):
    generator = torch.Generator().manual_seed(size)
    tensor = torch.randn(4, size, generator=generator)
    tensor[torch.rand(tensor.shape, generator=generator) < zeros] = 0.0
    shared = share_values(tensor, bits, groups=groups)
    assert torch.equal(shared == 0, tensor == 0) or not shared[tensor == 0].any()
    for part, before in zip(shared.tensor_split(groups), tensor.tensor_split(groups), strict=True):
        values = part[before != 0].unique()
        assert len(values) <= 2**bits - 1
        assert torch.equal(share_values(part, bits), part), "sharing again changes nothing"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floats_keep_their_type(dtype):
    shared = share_values(torch.randn(16, 16).to(dtype), 3)
    assert shared.dtype == dtype
    assert len(shared.unique()) <= 8


@pytest.mark.parametrize("shape", [(), (0,), (1,), (0, 4), (2, 3, 4, 5)])
def test_any_shape(shape):
    tensor = torch.ones(shape)
    assert torch.equal(share_values(tensor, 2), tensor)


def test_rows_sum_as_plainly_as_can_be():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 6, (40, 50), generator=generator)
    codes[codes == 3] = 1  # a code that no weight has
    values = torch.randn(40, 50, generator=generator, dtype=torch.float64)
    for width in (2, 3, 64, 5000):
        found = sum_rows(values, rows_by_code(codes, 5, width=width))
        expected = torch.stack([values[codes == code].sum() for code in range(1, 6)])
        assert torch.allclose(found, expected, rtol=1e-12)
    assert sum_rows(torch.zeros(0), rows_by_code(torch.zeros(0, dtype=torch.int64), 0)).shape == (0,)


def test_rows_list_the_weights_of_each_code_in_their_order_however_many_parts_there_are(monkeypatch):
    monkeypatch.setattr("lianzhi.codebook.lookup.PART", 64)
    codes = torch.randint(0, 6, (1000,), generator=torch.Generator().manual_seed(1))
    codes[codes == 3] = 1
    codes[100:300] = 0  # whole parts without a weight
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64):
        table = rows_by_code(codes.to(dtype), 5, width=7)[0]
        assert table.dtype == torch.int32
        expected = []
        for code in range(1, 6):
            places = (codes == code).nonzero().flatten()
            rows = max(1, -(-len(places) // 7))
            expected.append(torch.nn.functional.pad(places, (0, rows * 7 - len(places)), value=1000))
        assert torch.equal(table.long().view(-1), torch.cat(expected))


def test_making_rows_holds_nothing_larger_than_they_are():
    largest = 0

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, (tuple, list)) else [result]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel() * tensor.element_size())
            return result

    codes = torch.randint(0, 32, (2**20,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    with Watched():
        table = rows_by_code(codes, 31)[0]
    assert largest == table.numel() * 4


def test_the_gradient_is_that_of_plain_indexing():
    centroids = torch.randn(7, dtype=torch.float64, requires_grad=True)
    codes = torch.randint(0, 8, (20, 30), generator=torch.Generator().manual_seed(0)).int()
    tables = rows_by_code(codes, 7)
    assert torch.autograd.gradcheck(lambda values: lookup(values, codes, tables).sin(), (centroids,))


def test_a_centroids_gradient_is_the_sum_of_its_weights():
    dense, shared = net(), net()
    share(shared, 3)
    weights = {name: shared[int(name)].weight.detach().clone() for name in "03"}
    with torch.no_grad():
        for name, weight in weights.items():
            dense[int(name)].weight.copy_(weight)
    inputs = torch.randn(8, 1, 8, 8)
    for model in (dense, shared):
        model(inputs).square().sum().backward()
    for name in "03":
        listed = shared[int(name)].parametrizations.weight
        codes, gradient = listed[0].codes, dense[int(name)].weight.grad
        expected = [gradient[codes == code].sum() for code in range(1, len(listed.original) + 1)]
        assert torch.allclose(listed.original.grad, torch.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "lamb"])
def test_the_state_of_the_optimizer_is_a_centroids(name):
    model = net()
    share(model, 2)
    optimizer = optimizers.optimizer(model, TrainOptions(optimizer=name, lr=1e-3, weight_decay=0.01))
    model(torch.randn(8, 1, 8, 8)).square().mean().backward()
    optimizer.step()
    shapes = {
        tuple(value.shape) for state in optimizer.state.values() for value in state.values() if value.dim()
    }
    assert shapes == {
        (3,),
        (6,),
        (5,),
    }  # centroids, BatchNorm and bias of the convolution, bias of the linear layer


def test_training_keeps_zeros_and_shares_and_bake_takes_the_values_to_the_bit():
    model = net()
    zeros = {name: model[int(name)].weight == 0 for name in "03"}
    names = [name for name, _ in model.named_parameters()]
    kinds = [type(module) for module in model]
    share(model, 2)
    optimizer = optimizers.optimizer(model, TrainOptions(lr=1e-3, weight_decay=0.1))
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(8, 1, 8, 8)).square().mean().backward()
        optimizer.step()
    model.eval()
    inputs = torch.randn(8, 1, 8, 8)
    outputs = model(inputs)
    books = {name: model[int(name)].parametrizations.weight.original.detach().clone() for name in "03"}
    assert bake(model) is model
    assert not is_shared(model)
    assert [name for name, _ in model.named_parameters()] == names
    assert [type(module) for module in model] == kinds
    assert torch.equal(model(inputs), outputs)
    for name, book in books.items():
        weight = model[int(name)].weight
        assert torch.equal(weight == 0, zeros[name])
        assert set(weight.unique().tolist()) == {0.0, *book.tolist()}


def test_a_copy_of_a_shared_model_trains_on_its_own():
    model = net()
    share(model, 2)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin[3].parametrizations.weight.original.add_(1.0)
    assert not torch.equal(twin[3].weight, model[3].weight)
    assert torch.equal(bake(copy.deepcopy(model))[3].weight, model[3].weight)


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.decoder = nn.Embedding(10, 4), nn.Linear(4, 10)
        self.decoder.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.embedding(ids))


def test_tied_weights_stay_tied():
    model = Tied()
    share(model, 2)
    assert [tuple(parameter.shape) for parameter in model.parameters()] == [(3,), (10,)]
    model(torch.arange(10)).sum().backward()
    with torch.no_grad():
        model.embedding.parametrizations.weight.original.mul_(2.0)
    assert torch.equal(model.embedding.weight, model.decoder.weight)
    bake(model)
    assert model.decoder.weight is model.embedding.weight
    assert len(model.embedding.weight.unique()) <= 3


def test_frozen_weights_stay_frozen():
    model = net()
    model[0].weight.requires_grad_(False)
    share(model, 2)
    assert not model[0].parametrizations.weight.original.requires_grad
    assert not bake(model)[0].weight.requires_grad


def test_bits_by_name_and_groups_of_channels():
    model = net()
    assert share(model, {"3.weight": 3}, groups=2) == {"3.weight": 3}
    assert isinstance(model[0].weight, nn.Parameter)
    halves = model[3].weight.tensor_split(2)
    assert all(len(half.unique()) <= 8 for half in halves)
    assert len(model[3].weight.unique()) > 8


def test_bad_calls_are_refused():
    with pytest.raises(RecipeError, match="bits: 0"):
        share_values(torch.ones(2, 2), 0)
    for bits in (2.5, "3", None, [3], True, {"0.weight": 2.5}):
        with pytest.raises(RecipeError, match="whole number"):
            share(net(), bits)
    with pytest.raises(RecipeError, match="groups: 3"):
        share_values(torch.ones(2, 2), 2, groups=3)
    with pytest.raises(DataError, match="int64"):
        share_values(torch.ones(2, 2, dtype=torch.int64), 2)
    with pytest.raises(DataError, match="NaN"):
        codebook(torch.tensor([[float("nan")]]), 2)
    with pytest.raises(GraphError, match=r"fc\.weight"):
        share(net(), {"fc.weight": 2})
    with pytest.raises(GraphError, match="nothing"):
        share(nn.ReLU(), 2)
    with pytest.raises(GraphError, match="recurrent"):
        share(nn.LSTM(2, 2), 2)
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
    with pytest.raises(GraphError, match="parametrizations"):
        share(model, {"0.parametrizations.weight.original1": 2})
    for old in (nn.utils.spectral_norm, nn.utils.weight_norm):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = nn.Sequential(nn.Linear(2, 2), old(nn.Linear(2, 2)))
        with pytest.raises(GraphError, match="the weight of '1' is computed by"):
            share(model, 2)
        assert share(model, {"0.weight": 2}) == {"0.weight": 2}
    shared = net()
    share(shared, 2)
    with pytest.raises(GraphError, match="already"):
        share(shared, 2)


def test_a_refused_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2))
    with pytest.raises(GraphError):
        share(model, 2)
    assert not is_shared(model)


def test_masks_that_were_not_released_do_not_get_in_the_way():
    model = net()
    masks = held(model)
    share(model, 2)
    model(torch.randn(8, 1, 8, 8)).square().mean().backward()
    assert model[3].parametrizations.weight.original.grad.shape == (3,)
    bake(model)
    assert all(torch.equal(model.get_parameter(name) != 0, mask) for name, mask in masks.masks.items())
