"""What can be counted without running the model: parameters, MACs, bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from lianzhi import graph
from lianzhi.errors import ArtifactError


def parameters(model: nn.Module) -> int:
    """The number of parameters, tied ones once; buffers do not count.

    >>> parameters(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in model.parameters())


def nonzero(model: nn.Module) -> int:
    """The number of parameters that are not zero, tied ones once.

    >>> nonzero(nn.LayerNorm(3))
    3
    """
    return sum(int(parameter.count_nonzero()) for parameter in model.parameters())


def macs(model: nn.Module, example_inputs: Any) -> int:
    """Multiply-accumulates of one sample: convolutions and matrix products.

    >>> import torch
    >>> macs(nn.Linear(3, 2), torch.zeros(4, 3))
    6
    """
    return graph.macs(graph.capture(model, example_inputs))


def size(path: str | os.PathLike[str]) -> int:
    """Bytes on disk: of a file with its side file of weights, or of all files of a folder."""
    target = Path(path)
    if target.is_dir():
        return sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    if not target.is_file():
        raise ArtifactError(f"{target}: no such file or folder")
    side = target.with_name(f"{target.name}.data")
    return target.stat().st_size + (side.stat().st_size if side.is_file() else 0)
