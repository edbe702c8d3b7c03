"""Patient Knowledge Distillation: Sun, Cheng, Gan and Liu 2019 (1908.09355).

    loss = (1 - alpha) · CE + alpha · T² · KL + patience · MSE of [CLS] states of length one

The states are those after the student's layers 1 … M - 1; which of the teacher's each learns from is the map:
`skip` takes every L/M-th (PKD-Skip), `last` the last but one and those before it (PKD-Last). `uniform` has the last
layer as well, ``tokens: all`` compares the states of all tokens, and ``normalize: false`` as long as they are: so did
the OneFlow platform.
The authors' code trains the student from the teacher's first layers: ``student: {layers: 3, init: first}``.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lianzhi.config import Config
from lianzhi.distill import losses
from lianzhi.distill.layer_map import LayerMap
from lianzhi.distill.losses.kd import divergences
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.each_sample import mean_by_sample
from lianzhi.distill.methods.encoders import Both, Pairs, check_both, depths, modules_of, run_both
from lianzhi.distill.methods.lesson import Lessons, Setting, Stage
from lianzhi.distill.methods.terms import weighted
from lianzhi.errors import DataError
from lianzhi.tasks import Batch


class PKDOptions(Config):
    """Options of the method `pkd`."""

    map: str | list[int] | list[tuple[int, int]] = Field(
        default="skip",
        description="skip, last, uniform, top, bottom; the teacher's layers for 1, 2, …; or [student, teacher] pairs",
    )
    alpha: float = Field(default=0.5, ge=0, le=1, description="weight of the teacher's probabilities")
    temperature: float = Field(default=5.0, gt=0)
    patience: float = Field(default=100.0, ge=0, description="weight of the states")
    tokens: Literal["cls", "all"] = "cls"
    normalize: bool = Field(default=True, description="states of length one; false: as long as they are")


@registry.register(
    "pkd",
    "The student's [CLS] states turn to those of chosen layers of the teacher",
    paper="https://arxiv.org/abs/1908.09355",
    config=PKDOptions,
)
def build(setting: Setting, options: PKDOptions) -> Lessons:
    """One stage: labels, the teacher's probabilities, and its states.

    >>> PKDOptions(map=[2, 4], patience=10).alpha
    0.5

    Raises:
        RecipeError: the map does not fit the depths, or teacher and student are one model.
        DataError: teacher and student have other classes, or states of other widths.
        GraphError: a model has no list of like layers.
    """
    setting.require_labels(1 - options.alpha, "alpha: 1")
    layers = LayerMap.named(options.map, *depths(setting))
    pairs = modules_of(setting, layers)
    both = check_both(setting, "pkd", hidden=pairs)
    widths = [both.student[pairs[0][0]].shape[-1], both.teacher[pairs[0][1]].shape[-1]]
    if widths[0] != widths[1]:
        raise DataError(
            f"pkd compares states as they are, and the student's are {widths[0]} wide, the teacher's {widths[1]}; "
            f"use minilm or tinybert, or a student made of the teacher's layers (student: {{layers: …}})"
        )

    def step(model: nn.Module, batch: Batch) -> dict[str, Any]:
        both = run_both(setting, batch.inputs, hidden=pairs)
        rows = partial(divergences, temperature=options.temperature)
        parts = {
            "hard": (1 - options.alpha, setting.loss(both.outputs, batch.labels)),
            "soft": (options.alpha, mean_by_sample(rows, *both.logits, both.mask)),
            "patience": (options.patience, _patience(both, pairs, options)),
        }
        return weighted(parts)

    return Lessons([Stage("pkd", step)])


def _patience(both: Both, pairs: Pairs, options: PKDOptions) -> Tensor:
    """The mean over layers of the loss on [CLS], or on all tokens that count."""
    loss = losses.patience if options.normalize else losses.hidden_mse
    found = []
    for one, other in pairs:
        student, teacher = both.student[one], both.teacher[other]
        if options.tokens == "all":
            found.append(loss(student, teacher, mask=both.mask, by_sample=True))
        else:
            found.append(loss(student[:, 0], teacher[:, 0]))
    return torch.stack(found).mean()
