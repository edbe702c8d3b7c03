"""A captured graph as a file of OneFlow source: `class Model`, with the module's own names and sizes."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from lianzhi._version import __version__
from lianzhi.deploy.oneflow.code import ops  # noqa: F401  (fills the table)
from lianzhi.deploy.oneflow.code.call import DTYPES, literal
from lianzhi.deploy.oneflow.code.constants import constant
from lianzhi.deploy.oneflow.code.forward import Forward
from lianzhi.deploy.oneflow.code.helpers import HELPERS
from lianzhi.deploy.oneflow.code.prepare import prepared
from lianzhi.deploy.oneflow.code.table import TABLE, key_of
from lianzhi.errors import TargetError
from lianzhi.graph import Graph, get_tensor
from lianzhi.graph.deserialize import BUFFER, FROZEN, PARAMETER, TEMPORARY
from lianzhi.graph.serialize import tensor_kinds, to_json

TEMPLATE = "model.py.tmpl"


@dataclass(frozen=True)
class Source:
    """The text of the file, and the tensors that its checkpoint has to hold, by their names there.

    Those are the module's state, and constants of its graph that are too long to stand in the text.
    """

    text: str
    tensors: dict[str, Tensor]


def write_source(graph: Graph) -> Source:
    """Write a captured graph as OneFlow source.

    >>> from lianzhi.graph import capture
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
    >>> text = write_source(capture(net, torch.zeros(1, 4))).text
    >>> print(text[text.index("    def forward"):])
        def forward(self, input):
            x = F.linear(input, self["0"].weight, self["0"].bias)
            x = flow.relu(x)
            return x

    Batch and length are as free in it as in the graph. Dropout and batch normalisation follow `train` and `eval`.

    Raises:
        TargetError: an operation has no counterpart in OneFlow, which names it and where it is; or the model is
            quantized, not of float32, or takes or gives something else than tensors.
    """
    nodes = prepared(graph.module.graph)
    _check_operations(nodes)
    kinds, constants = _held(graph, nodes)
    tensors = {name: get_tensor(graph.module, name) for name in kinds}
    _check_types(tensors, kinds)
    described = to_json(graph.module)
    _check_arguments(described, nodes)
    forward = Forward(nodes, set(kinds), constants, tokens=graph.dynamic_length)
    forward.write()
    result = iter(next(node for node in nodes.nodes if node.op == "output").args[0])  # type: ignore[union-attr, arg-type]
    forward.lines.append(f"return {_output(described['outputs'], result, forward)}")
    return Source(_file(forward, kinds, tensors), {name: tensor.detach() for name, tensor in tensors.items()})


def _held(graph: Graph, nodes: fx.Graph) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What the written model holds: the state, and constants too long for its text; and the short constants."""
    kinds = {name: kind for name, kind in tensor_kinds(graph.source).items() if kind != TEMPORARY}
    constants = {}
    for node in nodes.nodes:
        name = str(node.target)
        if node.op == "get_attr" and name not in kinds:
            value = get_tensor(graph.module, name)
            if constant(value, "") is None:
                kinds[name] = BUFFER
            else:
                constants[name] = value
    return kinds, constants


def _check_operations(nodes: fx.Graph) -> None:
    """Every operation is in the table; all that are not are named, with the layer that they are near."""
    missing: dict[str, str] = {}
    for node in nodes.nodes:
        if node.op in ("call_function", "call_module", "call_method") and key_of(node) not in TABLE:
            missing.setdefault(key_of(node), _layer_of(node))
    if any("fake_quantize" in name for name in missing):
        raise TargetError(
            "the model is quantized, and OneFlow has no int8 for it; write the float model for OneFlow, or choose target "
            "onnxruntime, openvino or tensorrt for the quantized one"
        )
    if missing:
        listed = "; ".join(f"{name} ({layer})" for name, layer in missing.items())
        raise TargetError(
            f"OneFlow source has no counterpart for {listed}; replace what computes it in the model, or choose another "
            f"target"
        )


def _layer_of(node: fx.Node) -> str:
    """The layer in whose code an operation is, or the last one before it whose weights were read."""
    seen: Any = node
    while isinstance(seen, fx.Node):
        stack = seen.meta.get("nn_module_stack") or {}
        paths = [value[0] for value in stack.values() if isinstance(value, tuple)]
        inside = [
            str(path).removeprefix("L['self'].") for path in paths if str(path) not in ("", "L['self']")
        ]
        if inside:
            return f"at '{node.name}', in layer '{inside[-1]}'"
        held = [str(source.target) for source in seen.all_input_nodes if source.op == "get_attr"]
        if held:
            return f"at '{node.name}', after layer '{held[0].rpartition('.')[0]}'"
        seen = next(iter(seen.all_input_nodes), None)
    return f"at '{node.name}'"


def _check_types(tensors: dict[str, Tensor], kinds: dict[str, str]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise TargetError(
                f"'{name}' is {tensor.dtype}; OneFlow computes in float32 on a CPU: give the model in float32 (model.float())"
            )
        if kinds[name] in (PARAMETER, FROZEN) and not tensor.is_floating_point():
            raise TargetError(
                f"'{name}' holds integers: the model is quantized; write the float model for OneFlow"
            )
        if tensor.dtype not in DTYPES:
            raise TargetError(
                f"'{name}' is {tensor.dtype}, which OneFlow has not; convert it in the model first (to int32, or float32)"
            )


def _check_arguments(described: dict[str, Any], nodes: fx.Graph) -> None:
    """Tensors alone go in, each an argument of its own."""
    if not all(tree.keys() == {"input"} for _, tree in described["arguments"]):
        raise TargetError(
            "OneFlow source: the model takes tensors in tuples or dicts; give each tensor an argument of its own in forward"
        )
    inputs = [node for node in nodes.nodes if node.op == "placeholder"]
    if not inputs or not all(isinstance(node.meta.get("val"), Tensor) for node in inputs):
        raise TargetError(
            "OneFlow source: the model takes something else than tensors; leave it out of the inputs"
        )


def _output(tree: Any, values: Any, forward: Forward) -> str:
    """What is returned, in the tuples, lists and dicts that the model has."""
    if "tuple" in tree:
        items = [_output(item, values, forward) for item in tree["tuple"]]
        return f"({items[0]},)" if len(items) == 1 else ", ".join(items) if items else "()"
    if "list" in tree:
        return f"[{', '.join(_output(item, values, forward) for item in tree['list'])}]"
    if "dict" in tree:
        return f"{{{', '.join(f'{key!r}: {_output(item, values, forward)}' for key, item in tree['dict'])}}}"
    return forward.value(next(values))


def _file(forward: Forward, kinds: dict[str, str], tensors: dict[str, Tensor]) -> str:
    """The whole file."""
    first: dict[int, str] = {}
    ties = {}
    for name, kind in kinds.items():
        if kind != BUFFER and first.setdefault(id(tensors[name]), name) != name:
            ties[name] = first[id(tensors[name])]
    parameters = [
        f"{name!r}: {tuple(tensors[name].shape)},"
        for name, kind in kinds.items()
        if kind != BUFFER and name not in ties
    ]
    buffers = [
        f"{name!r}: ({tuple(tensors[name].shape)}, {literal(tensors[name].dtype)}),"
        for name, kind in kinds.items()
        if kind == BUFFER
    ]
    template = importlib.resources.files("lianzhi.deploy.oneflow.code").joinpath(TEMPLATE).read_text("utf-8")
    parts = {
        "VERSION": __version__,
        "ARGUMENTS": ", ".join(forward.arguments),
        "IMPORTS": "".join(f"import {name}\n" for name in sorted(forward.imports)),
        "HELPERS": "".join(f"\n{HELPERS[name]}" for name in HELPERS if name in forward.helpers),
        "PARAMETERS": _table(parameters),
        "BUFFERS": _table(buffers),
        "TIES": _table([f"{name!r}: {other!r}," for name, other in ties.items()]),
        "FORWARD": "\n".join(f"        {line}".rstrip() for line in _trimmed(forward.lines)),
    }
    pieces = template.split("@")  # at odd places stand names; what is put there is not read again
    return "".join(parts[piece] if place % 2 else piece for place, piece in enumerate(pieces))


def _table(lines: list[str]) -> str:
    return "{}" if not lines else "{\n" + "".join(f"    {line}\n" for line in lines) + "}"


def _trimmed(lines: list[str]) -> list[str]:
    return lines[1:] if lines[:1] == [""] else lines
