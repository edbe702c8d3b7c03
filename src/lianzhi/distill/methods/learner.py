"""A student with what is trained beside it: projections, connectors, a memory. They are dropped when it has learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


class Learner(nn.Module):
    """What the training loop sees: called, it is the student; its parameters are the student's and the heads'.

    >>> import torch
    >>> learner = Learner(nn.Linear(4, 2), {"projection": nn.Linear(2, 8)})
    >>> learner(torch.zeros(1, 4)).shape, sorted(name for name, _ in learner.named_parameters())[0]
    (torch.Size([1, 2]), 'heads.projection.bias')

    A step takes features of `student` and gives them to `heads`. Checkpoints hold both.
    """

    def __init__(self, student: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.student = student
        self.heads = nn.ModuleDict(heads)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The student's outputs."""
        return self.student(*inputs, **named)
