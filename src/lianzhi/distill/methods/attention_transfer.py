"""Attention transfer: Zagoruyko and Komodakis 2016 (1612.03928). The student looks where the teacher looks.

The sum over the ends of all stages, with weight 1000, and the cross entropy; `soft` adds `kd`, as the authors do in
some of their experiments.
"""

from __future__ import annotations

from functools import partial

from pydantic import Field

from lianzhi.distill import losses
from lianzhi.distill.methods.by_features import FeatureOptions, choose, lessons, require_shapes, summed
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.lesson import Lessons, Setting


class AttentionTransferMethodOptions(FeatureOptions):
    """Options of the method `attention_transfer`."""

    weight: float = Field(default=1000.0, ge=0, description="of the loss on features")
    p: float = Field(default=2.0, gt=0, description="power of the activity")


@registry.register(
    "attention_transfer",
    "The student is active where the teacher is, at the end of every stage",
    paper="https://arxiv.org/abs/1612.03928",
    config=AttentionTransferMethodOptions,
)
def build(setting: Setting, options: AttentionTransferMethodOptions) -> Lessons:
    """One stage."""
    layers = choose(setting, options, "all")
    require_shapes("attention_transfer", [*layers.student, *layers.teacher], 4)
    compare = summed(partial(losses.attention_transfer, p=options.p))
    return lessons(setting, options, "attention_transfer", layers, compare)
