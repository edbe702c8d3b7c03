"""An operation of the graph with its arguments as source."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from lianzhi.errors import TargetError
from lianzhi.graph import shape_of

DTYPES = {
    torch.bool: "flow.bool",
    torch.uint8: "flow.uint8",
    torch.int8: "flow.int8",
    torch.int32: "flow.int32",
    torch.int64: "flow.int64",
    torch.float32: "flow.float32",
    torch.float64: "flow.float64",
}


class Call:
    """An operation's arguments by the names of its schema: as values, and as source.

    `call["self"]` is source, `call.value("self")` what the graph holds. `device` is where the model computes, as source.
    """

    def __init__(self, node: fx.Node, named: Callable[[fx.Node], str], device: str) -> None:
        self.node = node
        self.values = bound(node)
        self.device = device
        self.helpers: set[str] = set()
        self._named = named

    def __getitem__(self, name: str) -> str:
        return self.source(self.values[name])

    def value(self, name: str) -> Any:
        """An argument as the graph holds it."""
        return self.values[name]

    def source(self, value: Any) -> str:
        """A value as source: a variable's name, or a literal."""
        if isinstance(value, fx.Node):
            return self._named(value)
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(self.source(item) for item in value)}]"
        return literal(value)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor argument, free sizes as they were traced."""
        found = shape_of(self.values[name])
        assert found is not None
        return found

    def dtype(self, name: str | None = None) -> torch.dtype:
        """The type of a tensor argument; without a name that of the result."""
        value = self.node if name is None else self.values[name]
        tensor = value.meta["val"]
        assert isinstance(tensor, Tensor)
        return tensor.dtype

    def tuple(self, name: str, count: int) -> str:
        """A list of `count` numbers, of which one may stand for all, as the source of a tuple."""
        return self.repeated(self.values[name], count)

    def repeated(self, value: Any, count: int) -> str:
        """A number `count` times, or a list of as many, as the source of a tuple."""
        items = list(value) if isinstance(value, (list, tuple)) else [value]
        items = items * count if len(items) == 1 else items
        inner = ", ".join(self.source(item) for item in items)
        return f"({inner},)" if len(items) == 1 else f"({inner})"

    def unless(self, name: str, usual: Any, count: int = 0) -> str:
        """A further keyword argument with its comma, or nothing where it is the usual one; `count`: as a tuple of so many."""
        shown = self.tuple(name, count) if count else self[name]
        return (
            "" if shown == (self.repeated(usual, count) if count else literal(usual)) else f", {name}={shown}"
        )

    def helper(self, name: str, *arguments: str) -> str:
        """A call of one of the functions of `helpers.py`, which will stand in the source."""
        self.helpers.add(name)
        return f"{name}({', '.join(arguments)})"

    def refuse(self, why: str) -> TargetError:
        """The error that says why this operation cannot be written."""
        return TargetError(f"OneFlow source: {self.node.target} (at '{self.node.name}') {why}")


def literal(value: Any) -> str:
    """A constant as source.

    >>> literal(0.5), literal(float("-inf")), literal(torch.int64), literal("a'b"), literal(None)
    ('0.5', 'float("-inf")', 'flow.int64', '"a\\'b"', 'None')
    """
    if value is None or isinstance(value, (bool, int, str)):
        return repr(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f'float("{value}")'
    if isinstance(value, torch.dtype) and value in DTYPES:
        return DTYPES[value]
    if isinstance(value, torch.dtype):
        raise TargetError(f"OneFlow source: tensors of type {value} cannot be written")
    raise TargetError(f"OneFlow source: a {type(value).__name__} ({value!r:.60}) cannot be written")


def bound(node: fx.Node) -> dict[str, Any]:
    """Arguments by name, with the defaults of the schema; of a function of sizes ``a``, ``b``."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return dict(zip("abcdefgh", node.args, strict=False))
    schema = node.target._schema.arguments
    values = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    values |= dict(zip((argument.name for argument in schema), node.args, strict=False))
    return values | dict(node.kwargs)
