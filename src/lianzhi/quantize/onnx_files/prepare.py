"""Bring a float ONNX file into the form that is quantized: initializers, folded BatchNorms, opset 13 or later.

ONNX Runtime's own simplifications of the level "basic" do it (constants are folded, BatchNorm and scalings go
into the convolution before them), as its ``quant_pre_process`` does; they keep to the ops of ONNX.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from lianzhi.deploy import write_onnx
from lianzhi.deploy.inspection import is_quantized, read_onnx, side_files
from lianzhi.deploy.onnxruntime import first_line
from lianzhi.deploy.simplify import pool_globally
from lianzhi.errors import GraphError, TargetError
from lianzhi.quantize.onnx_files.fold import HARD_SWISH, fold
from lianzhi.quantize.onnx_files.net import opset

LEAST_IR = 7  # what goes with opset 12 and later
LEAST_OPSET = 13  # the first in which DequantizeLinear has an axis


def read_float(path: Path) -> Any:
    """The model in a file. Raises `TargetError` if it is no ONNX file, or holds quantizers already."""
    proto = read_onnx(path)
    if is_quantized(path):
        raise TargetError(f"{path}: it is quantized already; give the float file that it was made from")
    return proto


def side_paths(path: Path) -> list[Path]:
    """The files beside a file that hold its weights."""
    return [path.parent / name for name in sorted(side_files(read_onnx(path, weights=False)))]


def prepared(proto: Any, name: str) -> Any:
    """An equivalent model that is ready for quantizers; `name` is what messages call it.

    Raises `GraphError` where it cannot be brought to opset 13, or ONNX Runtime cannot read it.
    """
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(proto)
    model.ir_version = max(model.ir_version, LEAST_IR)
    model = _raised(model, name)
    held = {tensor.name for tensor in model.graph.initializer}
    for item in [item for item in model.graph.input if item.name in held]:
        model.graph.input.remove(
            item
        )  # files before IR 4 list their weights as inputs, which may be replaced
    model.ir_version = max(model.ir_version, LEAST_IR)
    model = onnx.shape_inference.infer_shapes(model)  # an output without a shape is no valid ONNX
    model = _simplified(model, name)
    _drop_domains(model)
    del model.graph.value_info[:]
    model = onnx.shape_inference.infer_shapes(model)
    pool_globally(model)
    fold(model)
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model)


def _raised(model: Any, name: str) -> Any:
    import onnx

    version = opset(model)
    if version >= LEAST_OPSET:
        return model
    try:
        raised = onnx.version_converter.convert_version(model, HARD_SWISH)
    except Exception as error:
        raise GraphError(
            f"{name}: it is written in opset {version}, and cannot be brought to opset {HARD_SWISH}; "
            f"quantizers need {LEAST_OPSET} ({first_line(error)}); export it again with opset {LEAST_OPSET} or later"
        ) from error
    for entry in [item for item in model.opset_import if item.domain not in ("", "ai.onnx")]:
        if entry.domain not in {item.domain for item in raised.opset_import}:
            raised.opset_import.append(entry)
    return raised


def _simplified(model: Any, name: str) -> Any:
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="lianzhi-") as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        write_onnx(model, before)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(after)
        options.log_severity_level = 4
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", "after.data"
        )
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_min_size_in_bytes", "1024"
        )
        try:
            onnxruntime.InferenceSession(str(before), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise GraphError(
                f"{name}: onnxruntime cannot read it, so it cannot be calibrated ({first_line(error)}); "
                f"check that the file runs there, or export it again"
            ) from error
        return onnx.load(str(after))


def _drop_domains(model: Any) -> None:
    """ONNX Runtime lists all sets of ops that it knows; keep those that are used."""
    used, pending = {""}, [model.graph]
    while pending:
        for node in pending.pop().node:
            used.add("" if node.domain == "ai.onnx" else node.domain)
            for attribute in node.attribute:
                pending += [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
    for function in model.functions:
        used |= {node.domain for node in function.node}
    for entry in [item for item in model.opset_import if item.domain not in used]:
        model.opset_import.remove(entry)
