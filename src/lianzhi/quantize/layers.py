"""A precision of its own for the weights of some layers: int4, int8 or float, by patterns of layer names.

Embedding tables take int8 or float: no runtime looks rows up among integers of 4 bits.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

import torch
from torch import fx

from lianzhi.errors import RecipeError, did_you_mean
from lianzhi.graph import TracedModule, get_tensor, replace_tensor
from lianzhi.quantize.affine import FAKE_WEIGHT
from lianzhi.quantize.placement import layer_name
from lianzhi.quantize.placement.ops import TABLES, WEIGHTED
from lianzhi.quantize.rows import row_scale
from lianzhi.quantize.scheme import Scheme

CHOICES = {"int4": 4, "int8": 8, "float": 32}  # bits a weight


def choices_of(module: TracedModule, layers: Mapping[str, str] | None) -> dict[str, str]:
    """The choice of each layer that a pattern fits; the first that does counts.

    Raises `RecipeError` for a pattern that fits no layer.
    """
    if not layers:
        return {}
    layered, tables = (
        list(dict.fromkeys(layer_name(node) for node in module.graph.nodes if node.target in kinds))
        for kinds in (WEIGHTED, TABLES)
    )
    found: dict[str, str] = {}
    for pattern, choice in layers.items():
        names = layered if choice == "int4" else list(dict.fromkeys([*layered, *tables]))
        fitting = [name for name in names if name == pattern] or fnmatch.filter(names, pattern)
        if not fitting and fnmatch.filter(tables, pattern):
            raise RecipeError(
                f"layers: '{pattern}' is an embedding table, which takes int8 or float, not int4"
            )
        if not fitting:
            raise RecipeError(f"layers: '{pattern}' matches no layer{did_you_mean(pattern, names)}")
        for name in fitting:
            found.setdefault(name, choice)
    return found


def in_float(choices: Mapping[str, str]) -> list[str]:
    """The layers that stay float, as patterns of `ignore`.

    >>> in_float({"stem": "float", "head[0]": "float", "body": "int4"})
    ['stem', 'head[[]0]']
    """
    return [escaped(name) for name, choice in choices.items() if choice == "float"]


def escaped(name: str) -> str:
    """The pattern that fits this name alone.

    >>> escaped("head[0]")
    'head[[]0]'
    """
    return "".join(f"[{char}]" if char in "[*?" else char for char in name)


def coarsen(module: TracedModule, choices: Mapping[str, str]) -> None:
    """Give the layers of choice int4 the grid of 4 bits, in place: the scale of least squared error, as far as the bias allows."""
    scheme = Scheme(CHOICES["int4"], per_channel=True)
    for node in module.graph.nodes:
        if node.target not in WEIGHTED or choices.get(layer_name(node)) != "int4":
            continue
        quantizer = node.args[1]
        if not isinstance(quantizer, fx.Node) or quantizer.target not in FAKE_WEIGHT:
            continue
        source, step, zero_point, axis, _, qmax = quantizer.args
        if qmax == scheme.qmax:
            continue  # its weight is read twice, and was met before
        weight, name = get_tensor(module, str(source.target)).detach(), str(step.target)  # type: ignore[union-attr]
        least = get_tensor(module, name)
        scale = row_scale(weight.reshape(least.numel(), -1), scheme).reshape(least.shape)
        replace_tensor(module, name, torch.maximum(scale, least))
        quantizer.args = (source, step, zero_point, axis, scheme.qmin, scheme.qmax)
    module.recompile()
