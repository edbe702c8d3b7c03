"""A whole recipe: the model, the task, the steps, how it is measured and what it is for."""

from __future__ import annotations

from typing import Annotated, Any

import yaml
from pydantic import Field, field_serializer, field_validator, model_validator

from lianzhi.config import Config
from lianzhi.recipe.specs import ModelSpec, TaskSpec
from lianzhi.recipe.steps import STEPS, kind_of, parse_step


class Measure(Config):
    """How latency is measured: batch sizes, threads (default: all cores), repeats."""

    batches: tuple[Annotated[int, Field(ge=1, le=2**24)], ...] = (1, 64)
    threads: int | None = Field(default=None, ge=1, le=1024)
    repeats: int = Field(default=50, ge=1, le=10**6)
    choose_batch: int = Field(default=1, ge=1)
    max_drop: float = Field(default=0.01, ge=0, le=1)

    @model_validator(mode="after")
    def _chosen_is_measured(self) -> Measure:
        if self.choose_batch not in self.batches:
            raise ValueError(
                f"'choose_batch' {self.choose_batch} is not one of 'batches' {list(self.batches)}"
            )
        return self


class Recipe(Config):
    """One run: model, task, steps, target, seed."""

    model: ModelSpec | None = None
    task: TaskSpec | None = None
    steps: tuple[Config, ...]
    target: str = "auto"
    precision: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**31)
    device: str = "cpu"
    measure: Measure = Measure()
    versions: dict[str, str] = Field(default_factory=dict)

    @field_validator("steps", mode="before")
    @classmethod
    def _parse_steps(cls, values: Any) -> Any:
        if not isinstance(values, (list, tuple)):
            raise ValueError("must be a list of steps, such as '- prune: {ratio: 0.5}'")
        if not values:
            raise ValueError(f"is empty: give at least one of {', '.join(STEPS)}")
        return tuple(parse_step(value, f"steps.{index}") for index, value in enumerate(values))

    @field_serializer("steps")
    def _dump_steps(self, steps: tuple[Config, ...]) -> list[dict[str, Any]]:
        return [{kind_of(step): step.to_dict()} for step in steps]

    def to_yaml(self) -> str:
        """The recipe with every default filled in."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def to_dict(self) -> dict[str, Any]:
        """Every option, flat where YAML is flat."""
        data = super().to_dict()
        for part in ("model", "task"):
            if data[part] is not None:
                options = data[part].pop("options")
                data[part] = {key: value for key, value in data[part].items() if value is not None} | options
        return data
