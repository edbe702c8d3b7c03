"""Schemes without integers: weights of 16 bits, or the float model with its norms folded.

The module computes in float32 with weights that 16 bits can hold; a float16 file computes in float16 as well, so that
its results differ from the module's by the rounding of the values between.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from lianzhi.graph import TracedModule, are_tokens, capture, on_cpu
from lianzhi.measure.metric import one_number
from lianzhi.quantize.batches import samples
from lianzhi.quantize.fold import fold_batch_norm
from lianzhi.quantize.inputs import calibration_batches, naming_the_batch
from lianzhi.quantize.model import QuantizedModel
from lianzhi.quantize.placement import place, rules_of
from lianzhi.quantize.prepare import prepare
from lianzhi.quantize.ranges import Ranges
from lianzhi.quantize.report import make_report
from lianzhi.quantize.scheme import Schemes
from lianzhi.quantize.storage import LARGEST_FLOAT16


def float_model(
    model: nn.Module,
    example_inputs: Any,
    calibration: Iterable[Any] | None,
    target: str,
    weights: str,
    evaluate: Callable[[nn.Module], float] | None,
) -> QuantizedModel:
    """The model with its norms folded and weights of this type."""
    start = time.perf_counter()
    graph = capture(on_cpu(model), example_inputs, dynamic_length=are_tokens(example_inputs))
    example = [*graph.args, *graph.kwargs.values()]
    batches = [example] if calibration is None else calibration_batches(calibration, graph)
    module: TracedModule = copy.deepcopy(graph.module)
    prepare(module)
    folded, unfolded = fold_batch_norm(module)
    exact = copy.deepcopy(module)
    clipped = round_floats_(module, weights)
    placement = place(module, rules_of(target), lambda _: False)
    placement.values, placement.shares = [], {}
    with naming_the_batch(graph, batches):
        report = make_report(
            exact, module, placement, Ranges(), batches, Schemes(None, None), divisible=graph.dynamic_batch
        )
    report |= {
        "weights": weights,
        "activations": "float16" if weights == "float16" else "float",
        "left_float": [],
        "target": target,
        "observer": {"name": "none"},
        "reduce_range": False,
        "techniques": [],
        "calibration": {"batches": len(batches), "samples": samples(batches), "table": None},
        "folded": folded,
        "seconds": time.perf_counter() - start,
    }
    report["notes"] = [f"BatchNorm '{name}' is not folded: {reason}" for name, reason in unfolded]
    report["notes"] += [f"'{name}' has values that float16 cannot hold; they are clipped" for name in clipped]
    if evaluate is not None:
        report["accuracy"] = {"float": one_number(evaluate(model)), "quantized": one_number(evaluate(module))}
    return QuantizedModel(module, report, target, example_inputs, graph.dynamic_batch, storage=weights)


def round_floats_(module: nn.Module, name: str) -> list[str]:
    """Round all parameters to float16, or those of two dimensions and more to bfloat16; those that were clipped."""
    clipped = []
    with torch.no_grad():
        for key, tensor in module.named_parameters():
            if name == "float16":
                if tensor.abs().amax() > LARGEST_FLOAT16:
                    clipped.append(key)
                tensor.copy_(tensor.clamp(-LARGEST_FLOAT16, LARGEST_FLOAT16).half())
            elif name == "bfloat16" and tensor.dim() > 1:
                tensor.copy_(tensor.bfloat16())
    return clipped
