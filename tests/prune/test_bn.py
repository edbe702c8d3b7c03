"""Sparsity on BatchNorm scales, and new statistics after pruning."""

from __future__ import annotations

import copy

import pytest
import torch
from coupled_nets import made
from torch import nn

from lianzhi.errors import DataError, RecipeError
from lianzhi.graph import capture
from lianzhi.prune import bn_l1, bn_scales, plan, reestimate


def test_the_penalty_and_its_subgradient():
    net = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(1), nn.BatchNorm2d(3, affine=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([1.0, -2.0]))
        net[1].weight.zero_()
    penalty = bn_l1(net, 0.1)
    assert penalty.item() == pytest.approx(0.3)
    penalty.backward()
    assert torch.allclose(net[0].weight.grad, torch.tensor([0.1, -0.1]))
    assert net[1].weight.grad.item() == 0
    assert bn_l1(bn_scales(net)).item() == pytest.approx(3.0)


def test_scales_of_a_captured_graph_are_the_models():
    net, image = made("Dense")
    traced = capture(net, image).module
    assert {id(scale) for scale in bn_scales(traced)} == {id(scale) for scale in bn_scales(net)}
    assert len(bn_scales(net)) == 3
    shared = nn.Sequential(net.norm1, net.norm1)
    assert len(bn_scales(shared)) == 1


def test_a_model_without_scales_is_refused():
    with pytest.raises(RecipeError, match="no BatchNorm"):
        bn_l1(nn.Linear(2, 2))


@pytest.mark.parametrize("traced", [False, True])
def test_statistics_are_plain_averages_over_the_batches(traced):
    net, image = made("Residual")
    batches = [torch.randn(6, 3, 12, 12) * scale for scale in (1, 2, 3)]
    with torch.no_grad():
        maps = [net.stem(batch) for batch in batches]
    mean = torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)
    variance = torch.stack([m.transpose(0, 1).flatten(1).var(1) for m in maps]).mean(0)
    model = capture(net, image).module if traced else net
    model.train()
    reestimate(model, batches)
    assert torch.allclose(model.get_buffer("norm.running_mean"), mean, atol=1e-5)
    assert torch.allclose(model.get_buffer("norm.running_var"), variance, atol=1e-4)
    assert model.training
    if not traced:
        assert net.norm.momentum == 0.1


@pytest.mark.parametrize("name", ["Dense", "OptionA"])
def test_nothing_but_statistics_changes(name):
    net, image = made(name)
    model = plan(net, image, ratio=0.4).apply()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    reestimate(model, [torch.randn(4, 3, 12, 12)])
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(before[key], tensor)}
    assert all("running" in key or "num_batches" in key for key in changed)
    assert bool(changed) == (name == "Dense")
    assert not model.training


@pytest.mark.parametrize("fail", [False, True])
def test_no_batch_or_a_bad_one_leaves_the_statistics_alone(fail):
    net, _ = made("Residual")
    before = copy.deepcopy(net.state_dict())
    batches = [torch.randn(2, 3, 12, 12), torch.randn(2, 9, 12, 12)] if fail else []
    with pytest.raises(RuntimeError if fail else DataError):
        reestimate(net, batches)
    assert torch.equal(net.norm.running_mean, before["norm.running_mean"])
    assert torch.equal(net.norm.running_var, before["norm.running_var"])
    assert net.norm.momentum == 0.1


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (
            [(torch.randn(2, 3, 12, 12), torch.tensor([0, 1]))],
            "batch 0 does not fit the model .*without labels",
        ),
        (torch.randn(2, 3, 12, 12), "batches is a Tensor"),
    ],
)
def test_batches_with_labels_are_told(batches, message):
    with pytest.raises(DataError, match=message):
        reestimate(made("Residual")[0], batches)
