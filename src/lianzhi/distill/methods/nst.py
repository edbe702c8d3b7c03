"""Neuron selectivity transfer: Huang and Wang 2017 (1707.01219). The channels, as a set, select the same positions.

The sum over the ends of all stages, with weight 50, and the cross entropy. (The authors' comparison with `kd` adds its
loss: `soft`.)
"""

from __future__ import annotations

from pydantic import Field

from lianzhi.distill import losses
from lianzhi.distill.methods.by_features import FeatureOptions, choose, lessons, require_shapes, summed
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.lesson import Lessons, Setting


class NSTMethodOptions(FeatureOptions):
    """Options of the method `nst`."""

    weight: float = Field(default=50.0, ge=0, description="of the loss on features")


@registry.register(
    "nst",
    "The student's channels select the positions that the teacher's select",
    paper="https://arxiv.org/abs/1707.01219",
    config=NSTMethodOptions,
)
def build(setting: Setting, options: NSTMethodOptions) -> Lessons:
    """One stage."""
    layers = choose(setting, options, "all")
    require_shapes("nst", [*layers.student, *layers.teacher], 4)
    return lessons(setting, options, "nst", layers, summed(losses.nst))
