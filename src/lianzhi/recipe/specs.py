"""Which model, which task, which student: names, places and options, as a recipe gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from lianzhi.config import Config
from lianzhi.errors import did_you_mean

COMMANDS = ("name", "data", "weights", "num_classes")  # keys that some command has an option for


def forward_extras(noun: str, allowed: Sequence[str]) -> Any:
    """Collect keys beside `allowed` into `options` (a zoo model's or a task's own configuration)."""

    def collect(values: Any) -> Any:
        if isinstance(values, str):
            values = {"name": values}
        if not isinstance(values, dict):
            return values
        given = values.get("options")
        if given is not None and not isinstance(given, dict):
            raise ValueError(f"'options' is a mapping of names and values, got {given!r:.60}")
        options = dict(given or {})
        for key in allowed:
            if key in options and not values.get("file"):  # a function of one's own may have any
                told = f" (in a command: --{key})" if key in COMMANDS else ""
                raise ValueError(
                    f"'{key}' is no option of the {noun}'s own: it stands beside 'options'{told}"
                )
        options.update({key: value for key, value in values.items() if key not in (*allowed, "options")})
        return {**{key: values[key] for key in allowed if key in values}, "options": options}

    return collect


class ModelSpec(Config):
    """Which model: a zoo name, an artifact folder, or a function in a Python file of one's own.

    `head: new` gives it a last layer for the task's classes, with fresh weights.
    """

    name: str | None = None
    artifact: str | None = None
    file: str | None = None
    weights: str | None = None
    num_classes: int | None = Field(default=None, ge=1)
    head: Literal["new"] | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _collect(cls, values: Any) -> Any:
        return forward_extras("model", ("name", "artifact", "file", "weights", "num_classes", "head"))(values)

    @model_validator(mode="after")
    def _one_source(self) -> ModelSpec:
        if self.artifact is not None and (self.name or self.file or self.weights or self.options):
            beside = [key for key in ("name", "file", "weights") if getattr(self, key)] + list(self.options)
            hint = did_you_mean(beside[0], self._beside()) if self.options else ""
            raise ValueError(
                f"an artifact brings its own architecture and weights, and has no {beside[0]!r} beside it{hint}; give "
                f"'artifact', and 'head: new' for other classes"
            )
        if self.artifact is not None and self.num_classes:
            raise ValueError(
                "an artifact has its own classes; 'head: new' gives it a last layer for the task's"
            )
        if self.name is None and self.artifact is None:
            keys = list(self.options)
            only = f"; there is only {keys[0]!r}{did_you_mean(keys[0], self._beside())}" if keys else ""
            raise ValueError(
                f"give 'name' (a zoo model, or with 'file' a function in it) or 'artifact'{only}"
            )
        return self

    @classmethod
    def _beside(cls) -> list[str]:
        """The keys that stand beside the model's own options."""
        return [key for key in cls.model_fields if key != "options"]


class TaskSpec(Config):
    """Which task: its name, where its data is, and the options of its reader."""

    name: str
    data: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _collect(cls, values: Any) -> Any:
        return forward_extras("task", ("name", "data"))(values)


class StudentSpec(ModelSpec):
    """Which student: some layers of the model as it is now, or another model, as in a recipe's ``model``.

    >>> StudentSpec(layers=3).init, StudentSpec(name="resnet20").name
    ('chosen', 'resnet20')

    `layers` is how many blocks of a stack, or which of them, from 1. `init` says where their weights are from: the
    chosen layers (of a number: evenly, the last among them), the `first` ones, or `scratch`: all weights anew.
    """

    layers: int | tuple[int, ...] | None = None
    init: Literal["chosen", "first", "scratch"] = "chosen"

    @property
    def is_another(self) -> bool:
        """Whether it is a model of its own, and not made of the one that there is."""
        return self.layers is None and self.init == "chosen"

    @model_validator(mode="before")
    @classmethod
    def _collect(cls, values: Any) -> Any:
        known = ("layers", "init", "name", "artifact", "file", "weights", "num_classes", "head")
        return forward_extras("student", known)(values)

    @model_validator(mode="after")
    def _one_source(self) -> StudentSpec:
        named = self.name or self.artifact or self.file
        other = named or self.weights or self.options or self.num_classes or self.head
        if self.is_another:
            return super()._one_source()  # type: ignore[operator,no-any-return]
        if self.options and not named:
            key = next(iter(self.options))
            raise ValueError(f"unknown option {key!r}{did_you_mean(key, self._beside())}")
        if other:
            raise ValueError("'layers' and 'init' are of the model as it is now: give them, or another model")
        numbers = (
            (1,) if self.layers is None else self.layers if isinstance(self.layers, tuple) else (self.layers,)
        )
        if not numbers or any(number < 1 for number in numbers) or list(numbers) != sorted(set(numbers)):
            raise ValueError(f"'layers' is a number from 1, or numbers that rise, got {self.layers}")
        if self.init == "first" and not isinstance(self.layers, int):
            raise ValueError("'init: first' takes the first so many layers: give 'layers' as a number")
        return self
