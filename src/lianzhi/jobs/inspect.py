"""Layers, MACs and prunable groups of a model, without changing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lianzhi import graph, measure, models, train
from lianzhi.columns import aligned
from lianzhi.errors import ArtifactError, RecipeError
from lianzhi.jobs.artifacts import LZC, Saved
from lianzhi.jobs.evaluate import task_for
from lianzhi.jobs.measuring import example_of
from lianzhi.jobs.prepare import open_task, prepare
from lianzhi.pipeline.batches import evaluator
from lianzhi.pipeline.pruning import data_for
from lianzhi.prune import Sensitivity
from lianzhi.prune import sensitivity as measure_sensitivity
from lianzhi.prune.sensitivity import RATIOS
from lianzhi.recipe import Prune, TaskSpec
from lianzhi.tasks import Task

_UNITS = {
    "channel": "channels",
    "heads": "heads",
    "head_dim": "dimensions of every head",
    "ffn": "channels (ffn)",
    "hidden": "channels (hidden)",
}


@dataclass(frozen=True)
class Inspection:
    """What the graph says of a model."""

    name: str
    parameters: int
    macs: int
    layers: list[dict[str, Any]]
    groups: list[dict[str, Any]]
    frozen: list[tuple[str, str]]
    sensitivity: Sensitivity | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "parameters": self.parameters,
            "macs": self.macs,
            "layers": self.layers,
            "groups": self.groups,
            "unprunable": [{"name": name, "reason": reason} for name, reason in self.frozen],
            **({} if self.sensitivity is None else {"sensitivity": self.sensitivity.to_dict()}),
        }

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.parameters:,} parameters, {self.macs:,} MACs (one sample)", ""]
        rows = [("layer", "type", "output", "parameters", "MACs")]
        for layer in self.layers:
            shape = "x".join(str(size) for size in layer["shape"])
            numbers = f"{layer['parameters']:,}", f"{layer['macs']:,}"
            rows.append((layer["name"], layer["type"], shape, *numbers))
        lines += aligned(rows, left={0, 1, 2})
        lines += ["", f"{len(self.groups)} prunable groups of channels"]
        width = max((len(group["name"]) for group in self.groups), default=5)
        for group in self.groups:
            flags = f" ({'; '.join(group['flags'])})" if group["flags"] else ""
            lines.append(
                f"  {group['name']:<{width}}  {group['channels']:>5} {_UNITS[group['kind']]}  "
                f"{', '.join(group['members'])}{flags}"
            )
        lines += ["", f"{len(self.frozen)} that cannot be pruned"]
        lines += [f"  {name}: {reason}" for name, reason in self.frozen]
        if self.sensitivity is not None:
            lines += ["", "the metric on the validation cut, by the share of a group's channels removed"]
            lines += [self.sensitivity.table()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Question:
    """What `inspect` is to measure beside the structure: sensitivities of a criterion on a task."""

    task: str | None = None
    data: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    ratios: tuple[float, ...] = RATIOS
    criterion: str = "l1"
    report: Callable[[str, int, int], None] | None = None


def inspect(
    source: str,
    *,
    shape: str | None = None,
    weights: str | None = None,
    device: str | None = None,
    question: Question | None = None,
) -> Inspection:
    """Inspect an artifact folder, a zoo model's name, or a recipe's model; sensitivities are measured on `device`."""
    place = train.check_device(device or "cpu")
    model, inputs, task = _open(source, shape, weights, question)
    captured = graph.capture(model, inputs)
    groups = graph.channel_groups(captured)
    found = None if question is None or task is None else _sensitivity(model.to(place), task, question, place)
    return Inspection(
        name=source,
        parameters=measure.parameters(model),
        macs=graph.macs(captured),
        layers=graph.layers(captured),
        groups=[group.to_dict() for group in groups.groups],
        frozen=list(groups.frozen),
        sensitivity=found,
    )


def _sensitivity(model: nn.Module, task: Task, question: Question, device: torch.device) -> Sensitivity:
    """The metric on the validation cut, never on the reported split, group by group."""
    step = Prune(ratio=question.ratios[0], ratios=question.ratios, criterion=question.criterion)
    return measure_sensitivity(
        model,
        train.move(task.example_inputs, device),
        evaluator(task),
        ratios=step.ratios,
        criterion=step.criterion,
        report=question.report,
        **_moved(data_for(step.criterion, step, task), device),
    )


def _moved(data: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Calibration batches where the model is; the loss stays what it is."""
    return {
        name: train.move(value, device) if name == "calibration" else value for name, value in data.items()
    }


def _open(
    source: str, shape: str | None, weights: str | None, question: Question | None
) -> tuple[nn.Module, Any, Task | None]:
    """The model, its example inputs, and the task if there is a question."""
    given = example_of(_shape(shape)) if shape else None
    path = Path(source)
    if weights is not None and (path.is_dir() or path.suffix in (".yaml", ".yml", LZC)):
        raise RecipeError(f"--weights is for a model of the zoo; {source} brings its own")
    if path.is_dir() or (path.is_file() and path.suffix == LZC):
        saved, task = Saved(path), None
        if question is not None:
            options = question.options
            task, _ = task_for(saved, task=question.task, data=question.data, options=options)
        return saved.module(), saved.example_inputs() if given is None else given, task
    if path.suffix in (".yaml", ".yml"):
        if question is not None and (question.task or question.data or question.options):
            raise RecipeError(f"{source} names its own task: leave out --task, --data and --set")
        job = prepare(source)
        return job.model, job.task.example_inputs if given is None else given, job.task
    if path.suffix == ".onnx":
        raise RecipeError(
            f"{source}: inspect reads PyTorch modules, and an ONNX file holds none; give the artifact folder, a zoo "
            f"name or a recipe, or time the file with: lianzhi measure {source}"
        )
    if path.exists() or len(path.parts) > 1:
        what = "is a file" if path.exists() else "there is no such folder"
        raise ArtifactError(f"{source}: {what}; give an artifact folder, a zoo name, or a YAML recipe")
    task = None
    if question is not None:
        if question.task is None:
            raise RecipeError(
                f"{source}: on which task? Add --task NAME --data DIR (see: lianzhi list tasks)"
            )
        if weights is None:
            raise RecipeError(
                f"{source}: a model of the zoo has random weights, whose sensitivity says nothing; add --weights FILE"
            )
        task = open_task(TaskSpec(name=question.task, data=question.data, options=question.options))
    model = models.model(source, weights=weights)
    if given is None:
        given = example_of(list(models.input_shape(model)))
    return model, given, task


def _shape(text: str) -> list[int]:
    parts = text.lower().replace(",", "x").split("x")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise RecipeError(f"--input {text}: write the shape of one sample as 3x32x32")
    return [int(part) for part in parts]
