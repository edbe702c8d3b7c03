"""A table of texts, whatever file it is from: columns by name, and where each row is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TextTable:
    """The columns asked for. `line` says where a row is; `broken` rows were passed over.

    `classes` are the names of the numbers in a column, where the file tells them.
    """

    where: str
    columns: dict[str, list[Any]]
    line: Callable[[int], str]
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    broken: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))
