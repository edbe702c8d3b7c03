"""Embedding tables of a file: rows looked up as integers, as `quantize.tables` does it for modules.

A `Gather` says less than an embedding layer: it may pick the corners of boxes. A constant counts as a table from 64 Ki
numbers on; below, there is little to save.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lianzhi.quantize.affine import dequantize_symmetric, quantize_symmetric
from lianzhi.quantize.onnx_files.net import Net, attribute, label
from lianzhi.quantize.tables import TABLE, row_scales

GATHER = "Gather"
LEAST_NUMBERS = 1 << 16


def place_tables(
    net: Net, skipped: Callable[[Any], str], refusal: str
) -> tuple[list[Any], list[tuple[str, str]]]:
    """The look-ups whose table is quantized, and those that stay float with the reason, in order."""
    taken, left = [], []
    for node in [item for item in net.nodes if _looks_up(net, item)]:
        reason = skipped(node) or _obstacle(net, node.input[0]) or refusal
        if reason:
            left.append((label(node), reason))
        else:
            taken.append(node)
    return taken, left


def _looks_up(net: Net, node: Any) -> bool:
    """Whether a node picks rows of a large constant ``(rows, width)``."""
    if node.op_type != GATHER or attribute(node, "axis", 0) != 0 or not net.computed(node.input[1]):
        return False
    table = net.array(node.input[0])
    return table is not None and table.dtype == np.float32 and table.ndim == 2 and table.size >= LEAST_NUMBERS


def _obstacle(net: Net, name: str) -> str:
    if name in net.nested or name in net.outputs:
        return "a branch or a result reads the same table in float"
    other = next((item for item in net.readers[name] if not _looks_up(net, item)), None)
    return "" if other is None else f"'{label(other)}' reads the same table in float"


def rounded_table(net: Net, name: str) -> tuple[Tensor, Tensor]:
    """A table, and what is left of it."""
    table, integers, scale = _rows(net, name)
    return table, dequantize_symmetric(integers, scale)


def stored_table(net: Net, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The integers of a table ``(rows, width)``, and their scales ``(rows, 1)``."""
    _, integers, scale = _rows(net, name)
    return integers.numpy().astype(np.int8), scale[:, None].numpy()


def _rows(net: Net, name: str) -> tuple[Tensor, Tensor, Tensor]:
    table = torch.from_numpy(np.array(net.array(name)))
    scale = row_scales(table)
    return table, quantize_symmetric(table, scale, TABLE.qmin, TABLE.qmax), scale
