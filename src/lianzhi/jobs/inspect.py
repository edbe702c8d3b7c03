"""Layers, MACs and prunable groups of a model, without changing it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from lianzhi import artifact, graph, measure, models
from lianzhi.errors import RecipeError
from lianzhi.jobs.measuring import example_of
from lianzhi.jobs.prepare import prepare


@dataclass(frozen=True)
class Inspection:
    """What the graph says of a model."""

    name: str
    parameters: int
    macs: int
    layers: list[dict[str, Any]]
    groups: list[dict[str, Any]]
    frozen: list[tuple[str, str]]

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "parameters": self.parameters,
            "macs": self.macs,
            "layers": self.layers,
            "groups": self.groups,
            "unprunable": [{"name": name, "reason": reason} for name, reason in self.frozen],
        }

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.parameters:,} parameters, {self.macs:,} MACs (one sample)", ""]
        width = max((len(layer["name"]) for layer in self.layers), default=5)
        lines.append(f"{'layer':<{width}}  {'type':<12}{'output':<20}{'parameters':>12}{'MACs':>16}")
        for layer in self.layers:
            shape = "x".join(str(size) for size in layer["shape"])
            lines.append(
                f"{layer['name']:<{width}}  {layer['type']:<12}{shape:<20}"
                f"{layer['parameters']:>12,}{layer['macs']:>16,}"
            )
        lines += ["", f"{len(self.groups)} prunable groups of channels"]
        lines += [
            f"  {group['channels']:>5} channels  {', '.join(group['members'])}" for group in self.groups
        ]
        lines += ["", f"{len(self.frozen)} that cannot be pruned"]
        lines += [f"  {name}: {reason}" for name, reason in self.frozen]
        return "\n".join(lines)


def inspect(source: str, *, shape: str | None = None) -> Inspection:
    """Inspect an artifact folder, a zoo model's name, or a recipe's model."""
    model, inputs = _open(source, shape)
    captured = graph.capture(model, inputs)
    groups = graph.channel_groups(captured)
    return Inspection(
        name=source,
        parameters=measure.parameters(model),
        macs=graph.macs(captured),
        layers=graph.layers(captured),
        groups=[group.to_dict() for group in groups.groups],
        frozen=list(groups.frozen),
    )


def _open(source: str, shape: str | None) -> tuple[nn.Module, Any]:
    given = example_of(_shape(shape)) if shape else None
    path = Path(source)
    if path.is_dir():
        return artifact.load(path), artifact.example_inputs(path) if given is None else given
    if path.suffix in (".yaml", ".yml"):
        job = prepare(source)
        return job.model, job.task.example_inputs if given is None else given
    model = models.model(source)
    if given is None:
        given = example_of(list(models.input_shape(model)))
    return model, given


def _shape(text: str) -> list[int]:
    parts = text.lower().replace(",", "x").split("x")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise RecipeError(f"--input {text}: write the shape of one sample as 3x32x32")
    return [int(part) for part in parts]
