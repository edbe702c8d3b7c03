"""The arguments of a saved graph's ops as JSON, and their check against the op's own schema.

None, bools, integers, strings and lists are themselves; the rest is an object of one tag: ``{"node": name}``,
``{"float": 0.1}`` (or ``"inf"``, ``"-inf"``, ``"nan"``), ``{"dtype": "float32"}``, ``{"device": "cpu"}``,
``{"layout": "strided"}``, ``{"memory_format": "contiguous_format"}``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from lianzhi.errors import ArtifactError

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
        torch.complex64,
    )
}
LAYOUTS = {"strided": torch.strided}
MEMORY_FORMATS = {
    name: getattr(torch, name)
    for name in ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")
}
_TAGGED = {"dtype": DTYPES, "layout": LAYOUTS, "memory_format": MEMORY_FORMATS}
_NOT_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}

# what a node's value is
TENSOR, TENSORS, SYMBOL, NOTHING = "a tensor", "several tensors", "a size", "nothing"


def encode(value: Any) -> Any:
    """An argument as JSON.

    >>> encode([1, 0.5, torch.float16, None])
    [1, {'float': 0.5}, {'dtype': 'float16'}, None]
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return {"float": value if math.isfinite(value) else str(value)}
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, torch.device):
        return {"device": "cpu"}  # an artifact is loaded on the CPU, wherever it was made
    for tag, known in _TAGGED.items():
        for name, item in known.items():
            if value is item:
                return {tag: name}
    raise ArtifactError(f"a value of type {type(value).__name__} ({value!r:.60}) cannot be saved in a graph")


def decode(value: Any, nodes: Mapping[str, fx.Node], depth: int = 0) -> Any:
    """The inverse of `encode`; `nodes` are those that came before."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        if not re.fullmatch(r"[\w ,>.\-]{0,200}", value, re.ASCII):
            raise ArtifactError(f"the string {value!r:.60} is not an argument of any op")
        return value
    if isinstance(value, list) and depth < 3:
        return [decode(item, nodes, depth + 1) for item in value]
    if isinstance(value, dict) and len(value) == 1:
        tag, content = next(iter(value.items()))
        if tag == "float" and type(content) in (int, float):
            return float(content)
        if tag == "device" and content == "cpu":
            return torch.device("cpu")
        known: Mapping[str, Any] = {"node": nodes, "float": _NOT_FINITE, **_TAGGED}.get(tag, {})
        if isinstance(content, str) and content in known:
            return known[content]
        if tag == "node":
            raise ArtifactError(f"an op uses {content!r:.60} before it is computed")
    raise ArtifactError(f"{str(value)[:80]} is not an argument that this version knows")


def fits(value: Any, kind: Any) -> bool:
    """Whether a decoded argument has the type that the op's schema names."""
    name = kind.kind()
    if name == "OptionalType":
        return value is None or fits(value, kind.getElementType())
    if name == "ListType":
        element = kind.getElementType()
        if isinstance(value, fx.Node):
            return value.meta["kind"] == TENSORS and element.kind() == "TensorType"
        if isinstance(value, list):
            return all(fits(item, element) for item in value)
        return element.kind() in ("IntType", "SymIntType", "FloatType") and fits(value, element)
    if isinstance(value, fx.Node):
        wanted = TENSOR if name == "TensorType" else SYMBOL
        return value.meta["kind"] == wanted and name in _BY_NODE
    return name in _LITERAL and _LITERAL[name](value)


def _is_int(value: Any) -> bool:
    return type(value) is int


def _is_number(value: Any) -> bool:
    return type(value) in (int, float, bool)


_BY_NODE = {"TensorType", "IntType", "SymIntType", "FloatType", "NumberType", "BoolType", "SymBoolType"}
_LITERAL = {
    "TensorType": _is_number,  # PyTorch makes a tensor of a number where an op takes one
    "IntType": _is_int,
    "SymIntType": _is_int,
    "FloatType": lambda value: type(value) in (int, float),
    "NumberType": _is_number,
    "BoolType": lambda value: type(value) is bool,
    "StringType": lambda value: isinstance(value, str),
    "ScalarTypeType": lambda value: isinstance(value, torch.dtype),
    "LayoutType": lambda value: isinstance(value, torch.layout),
    "MemoryFormatType": lambda value: isinstance(value, torch.memory_format),
    "DeviceObjType": lambda value: isinstance(value, torch.device),
}
