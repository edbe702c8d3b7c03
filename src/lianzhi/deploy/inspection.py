"""What an ONNX file says of itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lianzhi.errors import DataError, TargetError

_OPEN_LENGTH = 16


def read_onnx(path: str | os.PathLike[str], *, weights: bool = True) -> Any:
    """Read an ONNX file; without `weights` those in a side file stay there."""
    import onnx

    try:
        return onnx.load(os.fspath(path), load_external_data=weights)
    except FileNotFoundError:
        raise TargetError(f"{path}: no such ONNX file") from None
    except Exception as error:
        raise TargetError(f"{path}: not an ONNX file, or a damaged one ({type(error).__name__})") from None


def is_quantized(path: str | os.PathLike[str]) -> bool:
    """Whether the file computes in integers: it holds quantizers, or operations on integers."""
    graph = read_onnx(path, weights=False).graph
    kinds = {node.op_type for node in graph.node}
    return bool(kinds & {"QuantizeLinear", "QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger"})


def onnx_example_inputs(path: str | os.PathLike[str]) -> Any:
    """Random inputs of one sample, of the shapes and types that the file declares.

    A tensor, or a dict of tensors where there are several inputs. A free dimension beyond the batch is taken
    as 16 (a length in tokens) for inputs of integers, and refused for others.
    """
    import onnx

    graph = read_onnx(Path(path), weights=False).graph
    generator = torch.Generator().manual_seed(0)
    made: dict[str, torch.Tensor] = {}
    held = {tensor.name for tensor in graph.initializer}
    for item in graph.input:
        if item.name in held:
            continue
        tensor = item.type.tensor_type
        dtype = torch.from_numpy(np.zeros(1, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))).dtype
        shape = [_size(item.name, dim, place, dtype) for place, dim in enumerate(tensor.shape.dim)]
        if dtype.is_floating_point:
            made[item.name] = torch.rand(shape, generator=generator).to(dtype)
        else:
            made[item.name] = torch.ones(shape, dtype=dtype)
    return next(iter(made.values())) if len(made) == 1 else made


def _size(name: str, dim: Any, place: int, dtype: torch.dtype) -> int:
    if dim.dim_value > 0:
        return int(dim.dim_value)
    if place == 0:
        return 1
    if dtype.is_floating_point:
        raise DataError(
            f"input '{name}' leaves dimension {place} ({dim.dim_param or 'unnamed'}) open, "
            f"so an example cannot be made; give the shape of one sample"
        )
    return _OPEN_LENGTH
