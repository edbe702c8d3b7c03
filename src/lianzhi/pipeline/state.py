"""What flows through a run: the model as it is now, its teacher, and how it came to be."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from lianzhi.pipeline.store import Store
from lianzhi.quantize import QuantizedModel
from lianzhi.recipe import Quantize, Recipe
from lianzhi.tasks import Task
from lianzhi.tasks.text_preprocess import TextPreprocess

NOTES = "notes"  # of a saved row: the remarks of the run so far; no part of the report's row
LAYERS = "layers"  # of a saved row: the MACs of each layer, by name; the report has those of the first and the last row
ORIGINAL = "original"  # the teacher of a distill step that names no other


@dataclass(frozen=True)
class Run:
    """What does not change during a run."""

    recipe: Recipe
    task: Task
    store: Store
    progress: bool = True
    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """True in the one process that writes files."""
        return self.rank == 0


@dataclass
class State:
    """What the steps change."""

    model: nn.Module
    teacher: nn.Module
    quantize: Quantize | None = None
    quantized: dict[str, QuantizedModel] = field(default_factory=dict)
    layers: dict[str, tuple[int, int]] = field(default_factory=dict)
    sparse: set[str] = field(default_factory=set)  # weights whose zeros stay zero in steps that train
    notes: list[str] = field(default_factory=list)
    task: Task | None = None  # the data as the model reads it, where a step gave it other tokens
    reads: TextPreprocess | None = None  # then: how the original model reads it

    def note(self, text: str) -> None:
        """Keep a remark for the report, once."""
        if text not in self.notes:
            self.notes.append(text)

    def add_layers(self, layers: list[dict[str, Any]]) -> None:
        """Follow the output channels of each layer over repeated pruning."""
        for layer in layers:
            first = self.layers.get(layer["name"], (layer["before"], 0))[0]
            self.layers[layer["name"]] = (first, layer["after"])


def reading(run: Run, state: State) -> Run:
    """The run with the data as the model reads it now."""
    return run if state.task is None else replace(run, task=state.task)
