"""A layer that stands in a model twice, under two names, is one layer before and after."""

import torch
from torch import nn

from lianzhi import prune


def shared():
    again = nn.Conv2d(8, 8, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), again, nn.ReLU(), again, nn.Flatten(), nn.Linear(8 * 36, 3)
    ).eval()


def test_its_weights_are_slices_of_its_own():
    model, inputs = shared(), torch.randn(2, 3, 6, 6)
    plan = prune.plan(model, inputs, ratio=0.5)
    kept = plan.kept["0"]
    pruned = plan.apply()
    assert pruned[1] is pruned[3]
    assert isinstance(pruned[1].weight, nn.Parameter)
    assert torch.equal(pruned[1].weight, model[1].weight[kept][:, kept])
    assert torch.equal(pruned[1].bias, model[1].bias[kept])
    with torch.no_grad():
        gone = [index for index in range(8) if index not in kept]
        model[1].weight[:, gone] = 0
        model[5].weight.view(3, 8, 36)[:, gone] = 0
        torch.testing.assert_close(pruned(inputs), model(inputs))


def test_it_is_pruned_twice():
    model, inputs = shared(), torch.randn(2, 3, 6, 6)
    once = prune.plan(model, inputs, ratio=0.25).apply()
    twice = prune.plan(once, inputs, ratio=0.25).apply()
    assert twice(inputs).shape == (2, 3)
