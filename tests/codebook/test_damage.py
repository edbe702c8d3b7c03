"""Pruning by what removing a weight costs: the score, what comes back, and layers that gradients reach late or never."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lianzhi.codebook.allocation import masks_for
from lianzhi.codebook.damage import Damage
from lianzhi.codebook.gradual import Gradual
from lianzhi.errors import GraphError, RecipeError


def row(*values: float, dtype: torch.dtype = torch.float32) -> nn.Linear:
    layer = nn.Linear(len(values), 1, bias=False)
    layer.weight = nn.Parameter(torch.tensor([values], dtype=dtype))
    return layer


def share_of(ratio: float, scope: str = "global") -> Callable[..., dict[str, Tensor]]:
    return lambda weights, share: masks_for(weights, ratio, scope)


def give(layer: nn.Linear, *gradient: float) -> None:
    """An update's gradient."""
    layer.weight.grad = torch.tensor([gradient], dtype=layer.weight.dtype)


def test_the_weights_that_cost_least_go():
    """The larger weight has inputs a tenth as large as the other's, so that without it less is lost."""
    layer = row(2.0, 1.0)
    gradual = Gradual(layer, ["weight"], share_of(0.5), updates=3, criterion="hessian")
    for _ in range(3):
        layer.weight.grad = None
        (0.5 * layer(torch.tensor([[0.1, 1.0]])).square().sum()).backward()
        gradual.after_step(layer)
    assert gradual.finish(layer)["weight"].tolist() == [[False, True]]


def test_the_score_is_the_cost_of_a_quadratic_loss():
    """The loss ½ Σ x² w² rises by ½ x² w² where w goes; the mean of the squared gradients is x⁴ w², of a batch of one."""
    weights, inputs = torch.tensor([3.0, 2.0, 0.5]), torch.tensor([1.0, 2.0, 4.0])
    layer = row(*weights.tolist())
    damage = Damage(layer, ["weight"], "_d_")
    seen = []
    for scale in (1.0, 0.0, 2.0):
        gradient = scale * inputs**2 * weights
        give(layer, *gradient.tolist())
        damage.read()
        seen.append(gradient**2)
        mean = torch.stack(seen).mean(0)
        found = damage.scores([layer.weight.detach()])[0]
        torch.testing.assert_close(found[0], weights * mean.sqrt(), rtol=1e-5, atol=0)


def test_after_a_thousand_updates_the_mean_forgets():
    layer = row(1.0)
    damage = Damage(layer, ["weight"], "_d_")
    for number in range(3000):
        give(layer, 1.0 if number < 1000 else 0.0)
        damage.read()
    assert layer.get_buffer("_d_square_0").item() == pytest.approx(0.999**2000, rel=1e-3)


def masks_at(scale: float) -> dict[str, Tensor]:
    """Of a layer times a number, a normalization and another layer."""
    torch.manual_seed(0)
    first, second = nn.Linear(6, 8, bias=False), nn.Linear(8, 3, bias=False)
    with torch.no_grad():
        first.weight.mul_(scale)
    model = nn.Sequential(first, nn.BatchNorm1d(8, eps=1e-12, affine=False), second)
    gradual = Gradual(model, ["0.weight", "2.weight"], share_of(0.5), updates=2, criterion="hessian")
    for _ in range(2):
        model.zero_grad()
        functional.cross_entropy(model(torch.randn(16, 6)), torch.arange(16) % 3).backward()
        gradual.after_step(model)
    return gradual.finish(model)


@pytest.mark.parametrize("scale", [0.125, 64.0])
def test_a_scale_before_a_normalization_changes_nothing(scale: float):
    """Magnitudes would choose otherwise, though the function is the same."""
    expected, found = masks_at(1.0), masks_at(scale)
    assert all(0 < int(mask.sum()) < mask.numel() for mask in expected.values())
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("late", [1, 10, 100])
def test_a_layer_that_is_reached_late_counts_as_much(late: int):
    """Two layers of the same weights and gradients, one of which another stage has trained for long."""
    torch.manual_seed(0)
    weights = torch.randn(100).tolist()
    model = nn.ModuleDict({"a": row(*weights), "b": row(*weights)})
    gradual = Gradual(
        model, ["a.weight", "b.weight"], share_of(0.5), updates=1000 + late, every=10**6, criterion="hessian"
    )
    for number in range(1000 + late):
        give(model["a"], *[1.0] * 100)
        if number >= 1000:
            give(model["b"], *[1.0] * 100)
        gradual.after_step(model)
    kept = [int(mask.sum()) for mask in gradual.finish(model).values()]
    assert abs(kept[0] - kept[1]) <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_layer_that_no_gradient_has_reached_has_magnitudes_at_the_level_of_the_others(dtype):
    torch.manual_seed(0)
    weights = torch.randn(100).to(dtype).tolist()
    model = nn.ModuleDict({"a": row(*weights, dtype=dtype), "b": row(*weights, dtype=dtype)})
    gradual = Gradual(model, ["a.weight", "b.weight"], share_of(0.9), updates=1, criterion="hessian")
    give(model["a"], *[1e-3] * 100)
    gradual.after_step(model)
    one, other = gradual.finish(model).values()
    assert torch.equal(one, other)
    assert int(one.sum()) == 10
    assert sorted(torch.tensor(weights).abs().argsort()[-10:].tolist()) == one[0].nonzero().flatten().tolist()


def test_where_no_weight_has_been_reached_magnitudes_decide():
    """A stage that trains other layers than those that are pruned."""
    model = nn.Sequential(row(3.0, 1.0), row(2.0))
    gradual = Gradual(model, ["0.weight"], share_of(0.5), updates=1, criterion="hessian")
    give(model[1], 1.0)
    gradual.after_step(model)
    assert gradual.finish(model)["0.weight"].tolist() == [[True, False]]


def test_a_removed_weight_comes_back_when_others_cost_less():
    layer = row(1.0, 1.1)
    gradual = Gradual(layer, ["weight"], share_of(0.5), updates=700, every=300, criterion="hessian")
    seen = []
    for _ in range(700):
        mask = layer.get_buffer("_gradual_mask_0")[0]
        give(layer, *torch.where(mask, 1.0, 0.0).tolist())
        gradual.after_step(layer)
        seen.append((layer.weight != 0)[0].tolist())
        if len(seen) > 400:
            with torch.no_grad():
                layer.weight[0, 1].clamp_(max=0.8)
    assert seen[300] == [False, True]
    assert seen[-1] == [True, False]


def test_where_gradients_are_zero_magnitudes_decide_and_zeros_go_first():
    layer = row(5.0, 0.0, 4.0, 1.0)
    gradual = Gradual(layer, ["weight"], share_of(0.5), updates=1, criterion="hessian")
    give(layer, 0.0, 1.0, 0.0, 1.0)
    gradual.after_step(layer)
    assert gradual.finish(layer)["weight"].tolist() == [[True, False, False, True]]


def test_gradients_that_are_not_finite_count_for_nothing():
    layer = row(2.0, 1.0)
    gradual = Gradual(layer, ["weight"], share_of(0.5), updates=2, criterion="hessian")
    give(layer, float("inf"), 1.0)
    gradual.after_step(layer)
    give(layer, 0.1, 1.0)
    gradual.after_step(layer)
    assert gradual.finish(layer)["weight"].tolist() == [[False, True]]


def test_a_gradient_that_a_later_stage_left_behind_is_not_read_again():
    model = nn.Sequential(row(1.0), row(1.0))
    damage = Damage(model, ["0.weight"], "_d_")
    give(model[0], 1.0)
    damage.read()
    model[0].weight.requires_grad_(False)
    model[0].weight.grad.fill_(5.0)
    damage.read()
    assert model.get_buffer("_d_square_0").item() == 1.0


def test_the_criterion_needs_gradients():
    layer = nn.Linear(2, 1)
    gradual = Gradual(layer, ["weight"], share_of(0.5), updates=3, criterion="hessian")
    with pytest.raises(GraphError, match="before zero_grad"):
        gradual.after_step(layer)
    layer.weight.requires_grad_(False)
    with pytest.raises(GraphError, match="frozen: 'weight'"):
        Gradual(layer, ["weight"], share_of(0.5), updates=3, criterion="hessian")
    with pytest.raises(RecipeError, match=r"hesian.*did you mean"):
        Gradual(layer, ["weight"], share_of(0.5), updates=3, criterion="hesian")
