"""Similarity-preserving distillation: Tung and Mori 2019 (1907.09682). What is alike to the teacher becomes alike.

The end of the last stage, with weight 3000, and the cross entropy. Samples are compared with those of their own batch, of
all processes; with `accumulate`, of their own part of it.
"""

from __future__ import annotations

from pydantic import Field

from lianzhi.distill import losses
from lianzhi.distill.methods.by_features import FeatureOptions, choose, lessons, related
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.lesson import Lessons, Setting


class SimilarityPreservingMethodOptions(FeatureOptions):
    """Options of the method `similarity_preserving`."""

    weight: float = Field(default=3000.0, ge=0, description="of the loss on features")


@registry.register(
    "similarity_preserving",
    "Samples of a batch are alike where they are to the teacher",
    paper="https://arxiv.org/abs/1907.09682",
    config=SimilarityPreservingMethodOptions,
)
def build(setting: Setting, options: SimilarityPreservingMethodOptions) -> Lessons:
    """One stage."""
    compare = related(losses.similarity_preserving)
    return lessons(setting, options, "similarity_preserving", choose(setting, options, "last"), compare)
