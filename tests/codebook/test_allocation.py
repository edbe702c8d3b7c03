"""How weights and bits are spread over the layers."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lianzhi.codebook.allocation import by_sensitivity, erk, masks_for, spend
from lianzhi.codebook.bits import bits_by_name, search_bits
from lianzhi.codebook.masks import weights_of
from lianzhi.codebook.sharing import bake, share
from lianzhi.errors import DataError, RecipeError


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10), nn.ReLU(), nn.Linear(10, 4))


@pytest.mark.parametrize("scope", ["global", "layer", "erk"])
@pytest.mark.parametrize(("ratio", "share"), [(0.9, 1.0), (0.5, 0.4), (0.0, 1.0)])
def test_the_share_of_all_weights_is_removed(scope, ratio, share):
    weights = weights_of(net())
    masks = masks_for(weights, ratio, scope, share=share)
    gone = sum(int((~mask).sum()) for mask in masks.values())
    assert abs(gone - ratio * share * sum(weight.numel() for weight in weights.values())) <= len(weights)


def test_a_share_for_each_layer_by_name():
    weights = weights_of(net())
    masks = masks_for(weights, 0.0, {"0.weight": 0.5, "2.weight": 0.0, "4.weight": 1.0})
    assert [round(float(mask.float().mean()), 2) for mask in masks.values()] == [0.5, 1.0, 0.0]


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.text("abc", min_size=1), st.tuples(st.integers(1, 64), st.integers(1, 64)), min_size=1
    ),
    st.floats(0, 1),
)
def test_erk_meets_its_ratio_and_small_layers_stay_denser(shapes, ratio):
    shares = erk(shapes, ratio)
    sizes = {name: rows * columns for name, (rows, columns) in shapes.items()}
    assert sum(shares[name] * size for name, size in sizes.items()) == pytest.approx(
        ratio * sum(sizes.values()), abs=1e-6
    )
    assert all(-1e-9 <= share <= 1 for share in shares.values())
    raw = {name: sum(shape) / sizes[name] for name, shape in shapes.items()}
    order = sorted(raw, key=lambda name: raw[name])
    assert all(shares[low] >= shares[high] - 1e-9 for low, high in pairwise(order))


def test_a_layer_without_weights_takes_no_part():
    shares = erk({"empty": (0, 5), "one": (10, 10)}, 0.5)
    assert shares["one"] == pytest.approx(0.5)
    masks = masks_for({"empty": torch.zeros(0, 5), "one": torch.arange(100.0).view(10, 10)}, 0.5, "erk")
    assert masks["empty"].shape == (0, 5)
    assert int(masks["one"].sum()) == 50


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_what_is_spent_is_the_ratio_whatever_the_curves(ratio, seed):
    generator = torch.Generator().manual_seed(seed)
    curves = {name: [0.0, *torch.rand(3, generator=generator).sort().values.tolist()] for name in "abc"}
    sizes = {"a": 10, "b": 1000, "c": 300}
    shares = spend(curves, [0, 0.4, 0.7, 1.0], sizes, ratio)
    assert sum(shares[name] * size for name, size in sizes.items()) == pytest.approx(ratio * 1310, abs=0.51)


def test_a_flat_part_behind_a_step_is_seen():
    """The way over the step costs less a weight than the other layer's rise."""
    curves = {"a": [0, 0.1, 0.1, 0.1], "b": [0, 0.06, 0.12, 0.18]}
    shares = spend(curves, [0, 0.3, 0.6, 0.9], {"a": 100, "b": 100}, 0.45)
    assert shares == {"a": pytest.approx(0.9), "b": 0.0}


def test_sensitive_layers_keep_their_weights():
    model = net()
    last = model[4].weight.detach().clone()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shares = by_sensitivity(
        model, weights_of(model), 0.8, lambda model: -float((model[4].weight.detach() - last).abs().sum())
    )
    assert shares["4.weight"] == 0.0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_bits_by_pattern_and_by_layer():
    names = ["features.0.weight", "fc1.weight", "fc2.weight"]
    assert bits_by_name(names, 4) == dict.fromkeys(names, 4)
    assert bits_by_name(names, {"features.*": 8, "fc1": 5}) == {"features.0.weight": 8, "fc1.weight": 5}
    with pytest.raises(RecipeError, match=r"'fc3\*' fits no weight"):
        bits_by_name(names, {"fc3*": 2})


def test_bits_of_a_tied_weight_by_any_of_its_names():
    also = {"embed.weight": ["embed.weight", "head.weight"]}
    assert bits_by_name(also, {"head": 4, "embed": 3}, also=also) == {"embed.weight": 4}
    with pytest.raises(RecipeError, match=r"'tail' fits no weight"):
        bits_by_name(also, {"head": 4, "tail": 3}, also=also)


def test_bits_are_searched_under_the_budget_and_weights_come_back():
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs = torch.randn(64, 20, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        outputs = model(inputs)

    @torch.no_grad()
    def evaluate(candidate: nn.Module) -> float:
        return -float((candidate(inputs) - outputs).square().mean() / outputs.square().mean())

    weights = weights_of(model)
    tight, loose = (search_bits(model, weights, evaluate, drop) for drop in (0.001, 0.1))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert sum(tight.values()) > sum(loose.values())
    assert all(1 <= bits <= 8 for bits in (*tight.values(), *loose.values()))


def test_bits_are_searched_with_the_values_that_are_shared_then():
    model = nn.Sequential(nn.Linear(32, 32, bias=False))
    weights = weights_of(model)
    seen = []

    def evaluate(candidate: nn.Module) -> float:
        seen.append(candidate[0].weight.detach().clone())
        return 0.0

    found = search_bits(model, weights, evaluate, 0.0, most=3, least=2, init="random", groups=2, seed=5)
    share(model, found, init="random", groups=2, seed=5)
    assert torch.equal(seen[-1], bake(model)[0].weight)


def test_bad_calls_are_refused():
    model = net()
    weights = weights_of(model)
    with pytest.raises(RecipeError, match="did you mean 'global'"):
        masks_for(weights, 0.5, "globl")
    with pytest.raises(RecipeError, match=r"up to 0\.99"):
        by_sensitivity(model, weights, 0.99, lambda model: 0.0)
    with pytest.raises(DataError, match="nan"):
        by_sensitivity(model, weights, 0.5, lambda model: float("nan"))
    with pytest.raises(RecipeError, match="cannot be met"):
        search_bits(
            model, weights, lambda model: -float(len(model[0].weight.detach().unique())) * -1, 0.0, most=2
        )
    with pytest.raises(RecipeError, match="bits from 5 to 2"):
        search_bits(model, weights, lambda model: 0.0, 0.0, most=2, least=5)
