"""What the small networks are made of, and masks to try them with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

IMAGE = (3, 12, 12)


def conv(inputs, outputs, kernel=3, **options):
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


class Net(nn.Module):
    """A body that gives (N, `width`, H, W), then pooling and a classifier."""

    def __init__(self, width):
        super().__init__()
        self.head = nn.Linear(width, 5)

    def body(self, x):
        raise NotImplementedError

    def forward(self, x):
        return self.head(F.adaptive_avg_pool2d(self.body(x), 1).flatten(1))


def random_keeps(decided, seed, share=0.5):
    generator = torch.Generator().manual_seed(seed)
    keeps = {}
    for group in decided.groups.groups:
        keep = torch.rand(len(group), generator=generator) > share
        keep[int(torch.randint(len(group), (1,), generator=generator))] = True
        keeps[group.name] = keep
    return keeps
