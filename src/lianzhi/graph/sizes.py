"""Computation with sizes in a saved graph: a fixed list of functions, and how large their results can be.

A graph that multiplies sizes over and over would make Python integers that fill the memory; so the number of
bits that a size can need is bounded when a graph is read.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from lianzhi.errors import ArtifactError

MAX_BITS = 900  # a float holds 1023
SIZE_BITS = 63

_FIRST = {
    f"operator.{name}": getattr(operator, name)
    for name in (
        "add",
        "sub",
        "mul",
        "floordiv",
        "truediv",
        "mod",
        "neg",
        "pow",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
    )
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **_FIRST,
    "torch.sym_max": torch.sym_max,
    "torch.sym_min": torch.sym_min,
    "torch.sym_int": torch.sym_int,
    "torch.sym_float": torch.sym_float,
    "torch.sym_not": torch.sym_not,
    "torch.sym_sum": torch.sym_sum,
    "math.ceil": math.ceil,
    "math.floor": math.floor,
    "math.trunc": math.trunc,
}
NAMES = {function: name for name, function in FUNCTIONS.items()}


def bits_of(name: str, arguments: Sequence[Any]) -> int:
    """How many bits the result can need. Refuses arguments that are not sizes, and results too large.

    >>> bits_of("operator.mul", [7, 8])
    7
    """
    if name == "torch.sym_sum":
        if len(arguments) != 1 or not isinstance(arguments[0], list) or not arguments[0]:
            raise ArtifactError("torch.sym_sum takes a list of sizes")
        arguments = arguments[0]
    sizes = [_bits(name, argument) for argument in arguments]
    count = 1 if name in _UNARY else 2
    if name != "torch.sym_sum" and len(sizes) != count:
        raise ArtifactError(f"{name} takes {count} sizes, got {len(sizes)}")
    if name == "operator.mul":
        bits = sum(sizes)
    elif name == "operator.pow":
        if type(arguments[1]) is not int or not 0 <= arguments[1] <= 4:
            raise ArtifactError("operator.pow of a size takes an exponent from 0 to 4")
        bits = sizes[0] * arguments[1] + 1
    else:
        bits = max(sizes) + len(sizes)
    if bits > MAX_BITS:
        raise ArtifactError(f"{name} multiplies sizes until they have more than {MAX_BITS} bits")
    return bits


_UNARY = {
    "operator.neg",
    "torch.sym_int",
    "torch.sym_float",
    "torch.sym_not",
    "math.ceil",
    "math.floor",
    "math.trunc",
}


def _bits(name: str, argument: Any) -> int:
    if isinstance(argument, fx.Node):
        bits = argument.meta.get("bits")
        if bits is None:
            raise ArtifactError(f"{name} computes with sizes only, and '{argument.name}' is not one")
        return int(bits)
    if isinstance(argument, int):
        return argument.bit_length()
    if isinstance(argument, float) and math.isfinite(argument):
        return 64 if abs(argument) < 2**63 else MAX_BITS + 1
    raise ArtifactError(f"{name} computes with sizes only, got {argument!r:.40}")
