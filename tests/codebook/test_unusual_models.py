"""Layers without outputs are left as they are; those without a shape, values or dense gradients are refused in words."""

import pytest
import torch
from torch import nn

import lianzhi as lz
from lianzhi.codebook.allocation import by_sensitivity, masks_for
from lianzhi.codebook.bits import search_bits
from lianzhi.codebook.gradual import Gradual
from lianzhi.codebook.masks import Masks, held, magnitude_mask, weights_of
from lianzhi.codebook.sharing import bake, share
from lianzhi.errors import ArtifactError, GraphError


@pytest.fixture
def model():
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="zero-element"):
        empty = nn.Linear(4, 0)
    return nn.ModuleList([empty, nn.Linear(4, 4)])


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("groups", [1, 3])
def test_a_layer_without_outputs_is_shared(model, moving, groups):
    assert share(model, 2, moving=moving, groups=groups) == {"0.weight": 2, "1.weight": 2}
    bake(model)
    assert model[0].weight.shape == (0, 4)
    assert len(model[1].weight.unique()) <= 3 * groups


def test_a_layer_without_outputs_has_no_part_in_what_is_searched(model):
    weights = weights_of(model)
    found = by_sensitivity(model, weights, 0.5, lambda model: 1.0)
    assert found == {"0.weight": 0.0, "1.weight": 0.5}
    assert search_bits(model, weights, lambda model: 1.0, 0.1, most=3)["1.weight"] == 1


@pytest.mark.parametrize("scope", ["global", "layer", "erk"])
def test_no_weights_have_no_masks(scope):
    assert masks_for({}, 0.5, scope) == {}


def test_a_lazy_layer_has_to_run_first(tmp_path):
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(
        ArtifactError, match=r"'0\.weight' has no shape yet.*run the model on an example first"
    ):
        lz.codebook.pack(model, tmp_path / "a.lzc")
    for call in (lambda: share(model, 3), lambda: weights_of(model)):
        with pytest.raises(
            GraphError, match=r"'0\.weight' has no shape yet; run the model on an example first"
        ):
            call()
    assert not list(tmp_path.iterdir())
    model(torch.ones(1, 2))
    assert share(model, 3) == {"0.weight": 3}


def test_weights_without_values_are_not_shared():
    with pytest.raises(
        GraphError, match="'weight' is on the device meta and has no values; load the weights"
    ):
        share(nn.Linear(3, 3, device="meta"), 3)


@pytest.mark.parametrize("table", [nn.Embedding(10, 4, sparse=True), nn.EmbeddingBag(10, 4, sparse=True)])
def test_a_table_of_sparse_gradients_takes_no_masks(table):
    model = nn.Sequential(table)
    masks = {"0.weight": magnitude_mask(table.weight, 0.5)}
    before = table.weight.detach().clone()
    for make in (
        lambda: Masks(model, masks),
        lambda: Gradual(model, list(masks), lambda weights, share: masks, updates=10),
    ):
        with pytest.raises(GraphError, match=r"'0\.weight' is of a table with sparse=True.*to False"):
            make()
    assert torch.equal(table.weight, before)
    table.sparse = False
    Masks(model, masks)
    model(torch.tensor([[1, 2]])).sum().backward()
    assert int((table.weight == 0).sum()) == 20


def test_a_frozen_table_of_sparse_gradients_takes_masks():
    """It has no gradient at all."""
    model = nn.Sequential(nn.Embedding.from_pretrained(torch.eye(4), sparse=True), nn.Linear(4, 2))
    masks = held(model)
    model(torch.tensor([1, 2])).sum().backward()
    masks.apply_(model)
    assert masks.kept["0.weight"] == 4
    gradual = Gradual(model, ["0.weight"], lambda weights, share: {"0.weight": torch.eye(4) > 1}, updates=1)
    gradual.after_step(model)
    assert not model[0].weight.any()


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_a_table_of_sparse_gradients_is_shared_as_one_of_dense_ones(kind, moving):
    gradients = []
    for sparse in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(kind(9, 4, sparse=sparse), nn.Linear(4, 2))
        share(model, 2, moving=moving)
        model(torch.tensor([[1, 2, 1]])).square().sum().backward()
        gradients.append(model[0].parametrizations.weight.original.grad)
    assert bool(gradients[0].any())
    assert not gradients[1].is_sparse
    torch.testing.assert_close(gradients[1], gradients[0])
