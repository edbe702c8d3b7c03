"""Export a module to one ONNX file (PyTorch's exporter over `torch.export`)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lianzhi.deploy.exporter import parse_functions_once
from lianzhi.deploy.simplify import pool_globally
from lianzhi.errors import ArtifactError, GraphError
from lianzhi.graph import Graph, are_tokens, capture, moved, on_cpu
from lianzhi.graph.any_length import any_length
from lianzhi.graph.trace import quiet

OPSET = 18
ONE_FILE = 1_900_000_000  # bytes; a protobuf message ends at 2 GB


def export_onnx(
    model: nn.Module, example_inputs: Any, path: str | os.PathLike[str], *, dynamic_batch: bool = True
) -> Path:
    """Write a module, in eval mode, as an ONNX file, and return its path.

    ```python
    deploy.export_onnx(model, torch.zeros(1, 3, 32, 32), "model.onnx")
    ```

    A model of one tensor in and one out has the input ``input`` and the output ``output``; others keep the
    names of their arguments, and of the keys of what they return (``logits``). Where the inputs are tokens
    (see `lianzhi.graph.are_tokens`) their length is free as the batch is. The weights lie in the file itself up to
    1.9 GB, beyond it in ``<name>.data`` beside it. The file appears under its name when it is complete.
    """
    tokens = dynamic_batch and are_tokens(example_inputs)
    model, example_inputs = on_cpu(model), moved(example_inputs, torch.device("cpu"))
    return write_onnx(
        to_proto(capture(model, example_inputs, dynamic_batch=dynamic_batch, dynamic_length=tokens)), path
    )


def to_proto(graph: Graph, *, translations: dict[Any, Any] | None = None) -> Any:
    """A captured graph as an ONNX `ModelProto`. `translations` maps ATen ops to ONNX functions."""
    inputs, outputs = _input_names(graph), _output_names(graph)
    dims = [
        dict.fromkeys(range(min(graph.free_dims, value.dim())), torch.export.Dim.DYNAMIC) or None
        if isinstance(value, torch.Tensor)
        else None
        for value in (*graph.args, *graph.kwargs.values())
    ]
    names = _placeholders(graph)
    parse_functions_once()
    options = {
        "kwargs": graph.kwargs or None,
        "dynamic_shapes": dict(zip(names, dims, strict=True)),
        "input_names": inputs,
        "output_names": outputs,
        "opset_version": OPSET,
        "custom_translation_table": translations,
    }
    try:
        proto = _optimized(graph.module, graph.args, options)
    except Exception as error:
        raise _not_exported(graph.source, error) from error
    pool_globally(proto)
    _clean(proto)
    if graph.dynamic_length:
        _name_dimensions(proto)
    return proto


def _optimized(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """A module as a `ModelProto`, by the exporter's own simplification where that does not fail.

    It fails on a tensor that is cut into parts along a free dimension; such a file is correct as it is, and the
    runtime simplifies it again.
    """
    with quiet(), torch.no_grad(), any_length():
        program: Any = torch.onnx.export(module, args, dynamo=True, optimize=False, verbose=False, **options)
        try:
            program.optimize()
        except Exception:  # half done: begin anew
            program = torch.onnx.export(module, args, dynamo=True, optimize=False, verbose=False, **options)
    return program.model_proto


def _not_exported(model: nn.Module, error: Exception) -> GraphError:
    reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
    return GraphError(
        f"{type(model).__name__} cannot be exported to ONNX ({type(error).__name__}: {reason[0]}); "
        f"replace the operation that is named, or keep target: pytorch"
    )


def _placeholders(graph: Graph) -> list[str]:
    return [str(node.target) for node in graph.nodes if node.op == "placeholder"]


def _input_names(graph: Graph) -> list[str]:
    names = _placeholders(graph)
    return ["input"] if len(names) == 1 and not graph.kwargs else names


def _output_names(graph: Graph) -> list[str] | None:
    with torch.no_grad():
        return _names_of(graph.module(*graph.args, **graph.kwargs))


def _names_of(value: Any) -> list[str] | None:
    """Names of a model's outputs, from what it returned."""
    if isinstance(value, torch.Tensor):
        return ["output"]
    if isinstance(value, dict):
        return [str(key) for key, item in value.items() if isinstance(item, torch.Tensor)]
    if isinstance(value, (tuple, list)) and all(isinstance(item, torch.Tensor) for item in value):
        return ["output"] if len(value) == 1 else [f"output_{index}" for index in range(len(value))]
    return None


def _clean(proto: Any) -> None:
    """Drop what no runtime reads (source paths, stack traces), and call the free dimension `batch`."""
    del proto.metadata_props[:]
    del proto.graph.metadata_props[:]
    for item in (*proto.graph.node, *proto.functions):
        del item.metadata_props[:]
        item.doc_string = ""
    for tensor in proto.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        del value.metadata_props[:]
        value.doc_string = ""
    del proto.graph.value_info[:]
    free = {
        dim.dim_param
        for item in proto.graph.input
        for dim in item.type.tensor_type.shape.dim[:1]
        if dim.dim_param
    }
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in free:
                dim.dim_param = "batch"


def _name_dimensions(proto: Any) -> None:
    """Call the free dimensions of inputs and outputs ``batch`` and, of inputs, ``length``."""
    for item in proto.graph.input:
        for dim, name in zip(item.type.tensor_type.shape.dim, ("batch", "length"), strict=False):
            if dim.dim_param:
                dim.dim_param = name
    for item in proto.graph.output:
        first = item.type.tensor_type.shape.dim[:1]
        if first and first[0].dim_param:
            first[0].dim_param = "batch"


def write_onnx(proto: Any, path: str | os.PathLike[str]) -> Path:
    """Check a model and write it; the file appears under its name when it is complete."""
    import onnx

    target = Path(path)
    if target.suffix != ".onnx":
        raise ArtifactError(f"{target}: the name of an ONNX file ends in .onnx")
    if not target.parent.is_dir():
        raise ArtifactError(f"{target}: the folder {target.parent} does not exist; make it first")
    try:
        with tempfile.TemporaryDirectory(prefix=".onnx-", dir=target.parent) as folder:
            draft = Path(folder) / target.name
            if proto.ByteSize() > ONE_FILE:
                onnx.save_model(
                    proto,
                    str(draft),
                    save_as_external_data=True,
                    location=f"{target.name}.data",
                    size_threshold=1024,
                )
            else:
                draft.write_bytes(proto.SerializeToString(deterministic=True))
            onnx.checker.check_model(str(draft))
            _move(sorted(Path(folder).iterdir(), key=lambda file: file.name == target.name), target.parent)
    except onnx.checker.ValidationError as error:
        raise GraphError(
            f"{target}: the exported graph is not valid ONNX: {str(error).splitlines()[0]}"
        ) from error
    except OSError as error:
        raise ArtifactError(f"{target}: cannot be written ({error.strerror or error})") from error
    return target


def copy_onnx(source: Path, target: Path) -> None:
    """Copy an ONNX file under another name, with the data of a large one, which it names."""
    import onnx

    if source.with_name(f"{source.name}.data").is_file():
        write_onnx(onnx.load(source), target)
    else:
        shutil.copyfile(source, target)


def _move(files: Sequence[Path], folder: Path) -> None:
    """Flush each file and give it its name; the model itself last."""
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(file, folder / file.name)
