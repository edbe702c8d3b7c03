"""A model captured as its target needs it, before anything is trained or written."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lianzhi import deploy, graph
from lianzhi.errors import GraphError
from lianzhi.pipeline.state import Run
from lianzhi.tasks import Task


def captured(run: Run, task: Task, model: nn.Module) -> graph.Graph:
    """The model's graph of any batch and, where texts go to an ONNX file, of any length.

    Raises:
        GraphError: it cannot be captured so, and could be neither measured nor exported; or it is quantized already.
    """
    inputs = task.example_inputs
    length = deploy.takes_onnx(run.recipe.target) and graph.are_tokens(inputs)
    return captured_float(model, inputs, dynamic_length=length)


def captured_float(model: nn.Module, inputs: Any, *, dynamic_length: bool = False) -> graph.Graph:
    """The graph of a model of full precision, which alone is pruned, trained and measured.

    Raises:
        GraphError: its weights are of half precision, it is quantized already, or it cannot be captured.
    """
    for name, parameter in model.named_parameters():
        if parameter.dtype in (torch.float16, torch.bfloat16):
            kind = str(parameter.dtype).removeprefix("torch.")
            raise GraphError(
                f"'{name}' of the model is {kind}, and models are compressed in full precision; give model.float() (of an artifact: "
                f"lz.load it, and lz.save it after .float())"
            )
    found = graph.capture(model, inputs, dynamic_length=dynamic_length)
    if any("fake_quantize" in str(node.target) for node in found.nodes):
        raise GraphError(
            "the model is quantized already: it computes with the roundings of int8, and its weights cannot be pruned, "
            "trained or quantized again; begin with the float model that it came from"
        )
    return found
