"""What cannot work is found out before anything is written: data, target, shapes, and each step's options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from lianzhi import artifact, deploy, distill, graph, quantize, train
from lianzhi.config import Config
from lianzhi.errors import DataError, LianzhiError, RecipeError
from lianzhi.pipeline.choose import runtimes
from lianzhi.pipeline.state import ORIGINAL, Run, State
from lianzhi.pipeline.steps import make_plan, quantization_targets
from lianzhi.recipe import Distill, Prune, Quantize, kind_of


def check(run: Run, model: nn.Module) -> None:
    """Raise a `LianzhiError` for a run that cannot work. Changes nothing and writes nothing."""
    train.check_device(run.recipe.device)
    runtimes(run)
    _check_shapes(run, model)
    task, steps = run.task, run.recipe.steps
    if not task.has("train") and any(isinstance(step, train.TrainOptions) for step in steps):
        raise DataError(f"task '{task.name}' has no training split, and the recipe has steps that train")
    for position, step in enumerate(steps):
        if type(step) in CHECKS:
            try:
                CHECKS[type(step)](run, model, step)
            except LianzhiError as error:
                raise type(error)(f"steps.{position} ({kind_of(step)}): {error}") from None


def _check_shapes(run: Run, model: nn.Module) -> None:
    outputs = graph.capture(model, run.task.example_inputs).output_shape
    classes = run.task.num_classes
    if classes is not None and outputs is not None and len(outputs) == 2 and outputs[1] < classes:
        raise DataError(
            f"the model gives {outputs[1]} outputs, and the task '{run.task.name}' has {classes} classes; "
            f"make the model with num_classes={classes}"
        )


def _check_prune(run: Run, model: nn.Module, step: Prune) -> None:
    """Make the plan for the model as it was given: its options, names and budget are tried."""
    make_plan(run, State(model=model, teacher=model), step)


def _check_distill(run: Run, model: nn.Module, step: Distill) -> None:
    distill.methods.registry.get(step.method)
    if step.teacher != ORIGINAL:
        artifact.load(step.teacher)


def _check_quantize(run: Run, model: nn.Module, step: Quantize) -> None:
    if not run.task.has("calibration"):
        raise DataError(
            f"task '{run.task.name}' has no calibration split; give calibration=…, cut from the training data"
        )
    if deploy.are_tokens(run.task.example_inputs):
        raise RecipeError(
            "int8 quantization of models that take tokens is not offered yet; leave the step out: the float model is "
            "deployed in the fastest precision that was measured"
        )
    for target in quantization_targets(run):
        quantize.check_options(
            target=target, weights=step.weights, activations=step.activations, techniques=step.techniques
        )


CHECKS: dict[type[Config], Callable[[Run, nn.Module, Any], None]] = {
    Prune: _check_prune,
    Distill: _check_distill,
    Quantize: _check_quantize,
}
