"""Attention-based fusion: Chen et al. 2021 (2104.09044), section 3.2. A student's stages, each fused with the deeper ones.

From the deepest stage to the first: a 1x1 convolution brings the stage to `width` channels; what came from the deeper
stages is enlarged to its size; two maps between 0 and 1, seen from both, weigh the one and the other, and their sum
goes on to the next stage, and through a 3x3 convolution to the shape of the teacher's stage. In this way a stage of the
teacher teaches the student's stage of its depth and all deeper ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lianzhi.distill.connectors import MapNorm, Resize


class Fusion(nn.Module):
    """Maps of the student's stages, first to last, to maps of the shapes of the teacher's.

    >>> shapes = [(1, 8, 8, 8), (1, 12, 4, 4)]
    >>> fusion = Fusion(shapes, [(1, 16, 8, 8), (1, 32, 2, 2)], width=512)
    >>> [tuple(maps.shape) for maps in fusion([torch.zeros(3, *shape[1:]) for shape in shapes])]
    [(3, 16, 8, 8), (3, 32, 2, 2)]

    As in the authors' code, no more channels than the student's last stage has are used inside.
    """

    def __init__(
        self, student: Sequence[Sequence[int]], teacher: Sequence[Sequence[int]], *, width: int = 512
    ) -> None:
        super().__init__()
        inside = min(width, student[-1][1])
        self.stages = nn.ModuleList(
            FusedStage(one, other, inside, deepest=number == len(student) - 1)
            for number, (one, other) in enumerate(zip(student, teacher, strict=True))
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        results: list[Tensor] = []
        deeper: Tensor | None = None
        for stage, own in zip(reversed(self.stages), reversed(maps), strict=True):
            result, deeper = stage(own, deeper)
            results.insert(0, result)
        return results


class FusedStage(nn.Module):
    """One stage: maps (batch, channels, height, width) and what came from deeper to (result, what goes on)."""

    def __init__(self, student: Sequence[int], teacher: Sequence[int], inside: int, *, deepest: bool) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(student[1], inside, 1, bias=False), MapNorm(inside))
        self.attention = None if deepest else nn.Conv2d(2 * inside, 2, 1)
        self.resize = Resize((teacher[2], teacher[3]))
        self.expand = nn.Sequential(
            nn.Conv2d(inside, teacher[1], 3, padding=1, bias=False), MapNorm(teacher[1])
        )
        for convolution in (self.reduce[0], self.expand[0]):
            nn.init.kaiming_uniform_(convolution.weight, a=1)

    def forward(self, maps: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        fused = self.reduce(maps)
        if self.attention is not None:
            assert deeper is not None
            deeper = functional.interpolate(deeper, fused.shape[2:], mode="nearest")
            own, other = self.attention(torch.cat([fused, deeper], 1)).sigmoid().split(1, dim=1)
            fused = own * fused + other * deeper
        return self.expand(self.resize(fused)), fused
