"""A seeded draw: the baseline that every criterion has to beat."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from lianzhi.config import Config
from lianzhi.prune.criteria.registry import registry
from lianzhi.prune.importance import GroupView


class RandomOptions(Config):
    """Options of `random`."""

    seed: int = 0


@registry.register("random", "a seeded draw, the baseline", config=RandomOptions)
def random(view: GroupView, *, seed: int = 0) -> list[Tensor]:
    """One uniform score a unit; a group's draw depends on the seed and on its name alone."""
    digest = hashlib.sha256(f"{seed}:{view.group.name}:{len(view)}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return [torch.rand(len(view), generator=generator, dtype=torch.float64)]
