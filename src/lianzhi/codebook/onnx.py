"""ONNX files whose weights are looked up: ``Gather(codebook, codes)`` instead of the weight itself.

ONNX has no Huffman codes, but codes of a byte make a file of float32 weights four times smaller, one of float16 twice. A runtime that folds
constants, as ONNX Runtime does, makes the weight of them once, when it loads the file, so it computes the same at the
same speed.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lianzhi import deploy
from lianzhi.codebook import values
from lianzhi.codebook.values import KINDS
from lianzhi.deploy.inspection import read_onnx

SMALLEST = 1024  # weights; two nodes and a codebook of their own do not pay for fewer


def export_onnx(
    model: nn.Module,
    example_inputs: Any,
    path: str | os.PathLike[str],
    *,
    codes: bool = True,
    dynamic_batch: bool = True,
) -> Path:
    """Write a module as an ONNX file, each weight of at most 65,536 distinct values as a codebook and codes.

    ```python
    codebook.export_onnx(lz.load("model.lzc"), torch.zeros(1, 3, 32, 32), "model.onnx")
    ```

    Codes take a byte (two for more than 256 values). With ``codes=False`` the weights are dense, as in
    `lianzhi.deploy.export_onnx`. Either file computes the same, bit for bit, in a runtime that folds constants.
    """
    if not codes:
        return deploy.export_onnx(model, example_inputs, path, dynamic_batch=dynamic_batch)
    with tempfile.TemporaryDirectory(prefix="lianzhi-") as place:
        dense = Path(place) / "model.onnx"
        deploy.export_onnx(model, example_inputs, dense, dynamic_batch=dynamic_batch)
        write_codes(dense, path)
    return Path(path)


def write_codes(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> int:
    """Write an ONNX file as another, with its floating weights of few distinct values as codes; return how many were.

    Weights are initializers of 1,024 numbers or more; one that is also an input of the graph may be given by the caller and stays.

    >>> import torch
    >>> layer, folder = nn.Linear(64, 64), tempfile.mkdtemp()
    >>> _ = layer.weight.data.copy_(layer.weight.sign())
    >>> dense = deploy.export_onnx(layer.eval(), torch.zeros(1, 64), folder + "/dense.onnx")
    >>> write_codes(dense, folder + "/codes.onnx")
    1

    Raises `TargetError` for a file that is no ONNX file, `ArtifactError` for one that cannot be written.
    """
    proto = read_onnx(source)
    count = look_up(proto.graph)
    deploy.write_onnx(proto, path)
    return count


def look_up(graph: Any) -> int:
    """Replace the graph's floating weights of few distinct values, in place; return how many were."""
    import onnx
    from onnx import helper, numpy_helper

    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)

    kept, added, nodes = [], [], []
    outputs = {item.name for item in graph.output} | {item.name for item in graph.input}
    for tensor in graph.initializer:
        found = None
        if tensor.data_type in floating and tensor.name not in outputs:
            weight = numpy_helper.to_array(tensor)
            found = _codes(weight) if weight.size >= SMALLEST else None
        if found is None:
            kept.append(tensor)
            continue
        book, codes, index = (f"{tensor.name}.{part}" for part in ("codebook", "codes", "index"))
        added += [numpy_helper.from_array(found[0], book), numpy_helper.from_array(found[1], codes)]
        nodes += [
            helper.make_node("Cast", [codes], [index], to=onnx.TensorProto.INT32),
            helper.make_node("Gather", [book, index], [tensor.name], axis=0),
        ]
    if not nodes:
        return 0
    rest = list(graph.node)
    del graph.node[:], graph.initializer[:]
    graph.node.extend([*nodes, *rest])
    graph.initializer.extend([*kept, *added])
    return len(nodes) // 2


def _codes(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Codebook and codes, if they are smaller than the weight."""
    bits = np.ascontiguousarray(weight).reshape(-1).view(KINDS[weight.itemsize])
    found = values.distinct(bits)
    if found is None:
        return None
    codes = values.codes(bits, found)
    if found.nbytes + codes.nbytes >= bits.nbytes:
        return None
    return found.view(weight.dtype), codes.reshape(weight.shape)
