"""Probabilistic knowledge transfer: Passalis and Tefas 2018 (1803.10837). The same samples are neighbours.

The last stage, averaged over its positions, with weight 30000, and the cross entropy. Samples are compared with those
of their own batch, of all processes; with `accumulate`, of their own part of it.
"""

from __future__ import annotations

from pydantic import Field

from lianzhi.distill import losses
from lianzhi.distill.methods.by_features import FeatureOptions, choose, embedding, lessons, related
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.lesson import Lessons, Setting


class PKTMethodOptions(FeatureOptions):
    """Options of the method `pkt`."""

    weight: float = Field(default=30000.0, ge=0, description="of the loss on features")


@registry.register(
    "pkt",
    "The same samples of a batch are neighbours as in the teacher",
    paper="https://arxiv.org/abs/1803.10837",
    config=PKTMethodOptions,
)
def build(setting: Setting, options: PKTMethodOptions) -> Lessons:
    """One stage."""
    compare = related(losses.pkt, embedding)
    return lessons(setting, options, "pkt", choose(setting, options, "last"), compare)
