"""A small CNN with a dense layer, data and a loss for it, and the scores that a criterion gives it."""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lianzhi.graph import capture, channel_groups
from lianzhi.prune import GroupView, criteria, evidence
from lianzhi.prune.criteria.registry import needed_by
from lianzhi.prune.importance import combine
from lianzhi.prune.scoring import resolve

IMAGE = torch.zeros(1, 3, 8, 8)
NAMES = criteria.registry.names()


class SmallCNN(nn.Module):
    """Groups: conv1 and conv2 with BatchNorm, fc1 without; conv2 is flattened from a map of 2 by 2."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.fc1, self.fc2 = nn.Linear(8 * 4, 10), nn.Linear(10, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class Stream(nn.Module):
    """A residual stream: stem, b and c give it. Inside the block a, which has no BatchNorm."""

    def __init__(self):
        super().__init__()
        self.stem, self.a = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.b, self.c = nn.Conv2d(12, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.b(F.relu(self.a(x)))
        return self.head(F.relu(self.c(x) + x).mean((2, 3)))


def small_cnn(seed=0):
    """In eval mode, nothing at its default."""
    torch.manual_seed(seed)
    net = SmallCNN().eval()
    with torch.no_grad():
        for bn in (net.bn1, net.bn2):
            bn.weight.normal_()
            bn.bias.normal_()
            bn.running_mean.normal_(std=0.3)
            bn.running_var.uniform_(0.5, 2.0)
    return net


def batches(count=3, size=4, shape=(3, 8, 8)):
    """(images, labels) pairs, the last one smaller."""
    generator = torch.Generator().manual_seed(7)
    return [
        (torch.randn(n, *shape, generator=generator), torch.randint(0, 5, (n,), generator=generator))
        for n in [size] * (count - 1) + [size - 1]
    ]


def loss(outputs, labels):
    return F.cross_entropy(outputs, labels)


def data_for(criterion, pairs=None):
    """What `plan` has to be given for a criterion."""
    pairs = batches() if pairs is None else pairs
    build = criteria.registry.get(criterion).build if isinstance(criterion, str) else criterion
    needed = needed_by(build)
    if needed is None:
        return {}
    if needed == "activations":
        return {"calibration": [inputs for inputs, _ in pairs]}
    return {"calibration": pairs, "loss": loss}


@functools.lru_cache(maxsize=8)
def captured(net):
    """The graph of a network and its groups. A capture takes a second; it shares the network's tensors."""
    graph = capture(net, IMAGE)
    return graph, channel_groups(graph)


def scores_of(net, criterion, *, pairs=None, aggregate="mean", normalize="none", **options):
    """The scores of each group that has any, as NumPy."""
    graph, groups = captured(net)
    score, needed, _ = resolve(criterion, options)
    data = {"calibration": None, "loss": None, **data_for(criterion, pairs)}
    known = evidence.collect(needed, graph, groups, data["calibration"], IMAGE, data["loss"])
    found = {
        group.name: combine(score(GroupView(group, graph.module, known)), aggregate, normalize, group)
        for group in groups.groups
    }
    return {name: values.numpy() for name, values in found.items() if values is not None}


def arrays(net):
    """The state of a network in float64."""
    return {name: np.asarray(tensor.detach().double()) for name, tensor in net.state_dict().items()}
