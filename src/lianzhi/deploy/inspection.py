"""What an ONNX file says of itself."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lianzhi.errors import DataError, TargetError

_OPEN_LENGTH = 16
_MOST_BYTES = 1 << 30


def read_onnx(path: str | os.PathLike[str], *, weights: bool = True) -> Any:
    """Read an ONNX file; without `weights` those in a side file stay there."""
    import onnx

    if not Path(path).is_file():
        raise TargetError(f"{path}: no such ONNX file")
    if Path(path).suffix == ".engine":
        raise TargetError(
            f"{path}: an engine of TensorRT runs only on the GPU that it was built for; give the model.onnx that lies "
            f"beside it: with --runtime tensorrt an engine is built of it for the GPU that is here, and run"
        )
    try:
        model = onnx.load(os.fspath(path), load_external_data=False)
    except Exception as error:
        raise TargetError(f"{path}: not an ONNX file, or a damaged one ({type(error).__name__})") from None
    checkside_files(path, model)
    if weights:
        try:
            onnx.load_external_data_for_model(model, os.path.dirname(os.fspath(path)))
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0][:200]
            raise TargetError(
                f"{path}: its weights in a side file cannot be read ({type(error).__name__}: {reason})"
            ) from None
    return model


def checkside_files(path: str | os.PathLike[str], model: Any) -> None:
    """Refuse weights that the file would take from outside its own folder.

    Raises:
        TargetError: a side file is an absolute path, leaves the folder, is a link out of it, or no plain file.
    """
    folder = Path(path).resolve().parent
    for place in sorted(side_files(model)):
        inside = not os.path.isabs(place) and ".." not in Path(place).parts and "\0" not in place
        if not inside or not (folder / place).resolve().is_relative_to(folder):
            raise TargetError(
                f"{path}: it takes weights from {place!r:.120}, outside its own folder, which was not opened; "
                f"put the weights beside the file, or do not use it"
            )
        if not (folder / place).is_file():
            raise TargetError(
                f"{path}: its weights are in {place!r:.120}, which is missing, or no plain file; restore it"
            )


def side_files(model: Any) -> set[str]:
    """Every location of external data in a model, wherever the tensor stands: also in attributes and subgraphs."""
    from google.protobuf.message import Message

    found: set[str] = set()
    pending = [model]
    while pending:
        item = pending.pop()
        if item.DESCRIPTOR.name == "TensorProto":
            found.update(entry.value for entry in item.external_data if entry.key == "location")
            continue
        for field, value in item.ListFields():
            if field.message_type is not None:
                pending.extend([value] if isinstance(value, Message) else value)
    return found


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
        try:
            kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            dtype = torch.from_numpy(np.zeros(1, kind)).dtype
        except (KeyError, TypeError):
            raise TargetError(
                f"{path}: its input '{item.name:.80}' is of a type of which no example can be made"
            ) from None
        shape = [_size(item.name, dim, place, dtype) for place, dim in enumerate(tensor.shape.dim)]
        if math.prod(shape) * dtype.itemsize > _MOST_BYTES:
            raise TargetError(
                f"{path}: its input '{item.name:.80}' has shape {shape}: more than {_MOST_BYTES:,} bytes a sample"
            )
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
            f"so an example cannot be made; give the shape of one sample, such as --input 3x224x224"
        )
    return _OPEN_LENGTH
