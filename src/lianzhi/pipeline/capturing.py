"""A model captured as its target needs it, before anything is trained or written."""

from __future__ import annotations

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
    found = graph.capture(model, inputs, dynamic_length=length)
    require_float(found)
    return found


def require_float(found: graph.Graph) -> None:
    """Raise `GraphError` for a model that computes with the roundings of int8."""
    if any("fake_quantize" in str(node.target) for node in found.nodes):
        raise GraphError(
            "the model is quantized already: it computes with the roundings of int8, and its weights cannot be pruned, "
            "trained or quantized again; begin with the float model that it came from"
        )
