"""What a technique is: a name, options, a stage, and a function of the float and the quantized graph.

Techniques are applied in the order of their stages, whatever the order in which they are given: first those
that rewrite the float model without changing what it computes, then at most one that chooses how weights are
rounded, then those that correct what rounding did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lianzhi.config import Config
from lianzhi.errors import RecipeError
from lianzhi.registry import Registry

registry = Registry("techniques", "technique")

REWRITE, ROUND, CORRECT = 0, 1, 2

Skipped = list[tuple[str, str]]  # layers that a technique left as they were, with the reason


class TechniqueConfig(Config):
    """Options of a technique; `stage` says when it is applied, `reads_data` whether it needs calibration data.

    Of the same stage those of a lower `turn` come first. `takes_parts`: it may be given batches in parts.
    """

    stage: ClassVar[int] = ROUND
    turn: ClassVar[int] = 0
    reads_data: ClassVar[bool] = True
    takes_parts: ClassVar[bool] = False


@dataclass(frozen=True)
class Chosen:
    """A technique with its options."""

    name: str
    apply: Any
    options: Any

    @property
    def stage(self) -> int:
        """When it is applied."""
        stage: int = self.options.stage
        return stage

    @property
    def reads_data(self) -> bool:
        """Whether it needs calibration data, a calibration table not being enough."""
        reads: bool = self.options.reads_data
        return reads

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {"name": self.name, **self.options.to_dict()}


def choose(techniques: Sequence[str | dict[str, Any]]) -> list[Chosen]:
    """Read names, or mappings of one name to its options, into techniques in their order of application.

    >>> [item.name for item in choose(["bias_correction", {"gptq": {"damping": 0.02}}])]
    ['gptq', 'bias_correction']
    >>> choose(["gptq", "adaround"])
    Traceback (most recent call last):
        ...
    lianzhi.errors.RecipeError: techniques: gptq and adaround each choose how weights are rounded; keep one of them
    """
    if isinstance(techniques, (str, dict)):
        techniques = [techniques]
    chosen = [_one(item) for item in techniques]
    names = [item.name for item in chosen]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"techniques: '{name}' is given twice")
    rounding = [item.name for item in chosen if item.stage == ROUND]
    if len(rounding) > 1:
        raise RecipeError(
            f"techniques: {' and '.join(rounding)} each choose how weights are rounded; keep one of them"
        )
    return sorted(chosen, key=lambda item: (item.stage, item.options.turn))


def _one(item: Any) -> Chosen:
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, dict) or len(item) != 1:
        raise RecipeError(f"techniques: write a name, or a name with its options, not {item!r}")
    name, options = next(iter(item.items()))
    entry = registry.get(str(name))
    if options is not None and not isinstance(options, dict):
        raise RecipeError(f"techniques: the options of '{name}' must be a mapping, not {options!r}")
    return Chosen(entry.name, entry.build, entry.options(**(options or {})))
