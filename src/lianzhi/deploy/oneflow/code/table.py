"""The table of operations: from an ATen operation to the source of its value.

An entry is a text with the operation's arguments in braces, by the names of its schema, or a function of a `Call`.
Each was compared with OneFlow 0.9.0: what it computes otherwise, or only on a GPU, is written out of simpler operations.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import fx

from lianzhi.deploy.oneflow.code.call import Call
from lianzhi.graph import sizes

Write = Callable[[Call], str]
TABLE: dict[str, str | Write] = {}


def add(entries: dict[str, str]) -> None:
    """Put texts into the table, by the operation's name without ``aten.``."""
    TABLE.update({_full(name): text for name, text in entries.items()})


def writes(*names: str) -> Callable[[Write], Write]:
    """Put a function into the table, under these names."""

    def register(function: Write) -> Write:
        TABLE.update({_full(name): function for name in names})
        return function

    return register


def key_of(node: fx.Node) -> str:
    """Under which name an operation stands in the table."""
    if getattr(node.target, "__name__", "") == "getitem":
        return "operator.getitem"
    return sizes.NAMES.get(node.target) or str(node.target)  # type: ignore[call-overload, no-any-return]


def source_of(call: Call) -> str:
    """The source of an operation that stands in the table."""
    entry = TABLE[key_of(call.node)]
    return entry.format_map(call) if isinstance(entry, str) else entry(call)  # type: ignore[arg-type]


def _full(name: str) -> str:
    return name if name.partition(".")[0] in ("operator", "torch", "math") else f"aten.{name}"
