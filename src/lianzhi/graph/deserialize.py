"""A graph from JSON that somebody else may have written.

Nothing is unpickled, evaluated or compiled from the file's text. fx makes Python code from a graph's *names*,
so every name is checked to be a plain one before a node is made of it; an op is looked up by its name in a
fixed list, and its arguments are checked against the op's own schema.
"""

from __future__ import annotations

import keyword
import operator
import re
import unicodedata
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo

from lianzhi.errors import ArtifactError
from lianzhi.graph import sizes
from lianzhi.graph.allowed_ops import is_known
from lianzhi.graph.module import TracedModule
from lianzhi.graph.schema import check_schema
from lianzhi.graph.structure import spec_of
from lianzhi.graph.values import SYMBOL, TENSOR, TENSORS, decode

PARAMETER, FROZEN, BUFFER, TEMPORARY = "parameter", "frozen", "buffer", "temporary"
_KINDS = (PARAMETER, FROZEN, BUFFER, TEMPORARY)
_KEYS = {"nodes", "arguments", "positional", "outputs", "tensors"}
MAX_NODES = 200_000
_FIELDS = {
    "input": {"op", "name"},
    "read": {"op", "name", "tensor"},
    "call": {"op", "name", "target", "args", "kwargs"},
}


def from_json(data: Any, tensors: dict[str, Tensor]) -> TracedModule:
    """Build the module that `to_json` described, in eval mode, around `tensors`.

    A tensor that stands under two names is one parameter. Raises `ArtifactError` for whatever does not fit.
    """
    try:
        return _build(data, tensors)
    except ArtifactError as error:
        raise ArtifactError(f"the saved graph is damaged or not made by Lianzhi: {error}") from None
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise ArtifactError(f"the saved graph is damaged or not made by Lianzhi ({reason})") from None


def _build(data: Any, tensors: dict[str, Tensor]) -> TracedModule:
    if not isinstance(data, dict) or data.keys() != _KEYS or not isinstance(data["nodes"], list):
        raise ArtifactError(f"it needs {', '.join(sorted(_KEYS))}")
    if len(data["nodes"]) > MAX_NODES:
        raise ArtifactError(f"it has {len(data['nodes']):,} nodes; at most {MAX_NODES:,} are read")
    kinds = _checked_kinds(data["tensors"], tensors)
    parameters: dict[int, nn.Parameter] = {}
    root = nn.Module()
    register_tensors(root, kinds, tensors, parameters)
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    flat: list[str] = []
    for entry in data["nodes"]:
        fields = _FIELDS.get(str(entry.get("op"))) if isinstance(entry, dict) else None
        if fields is None or entry.keys() != fields:
            raise ArtifactError(f"{str(entry)[:80]} is not a node")
        name = plain_name(entry["name"])
        if name in nodes:
            raise ArtifactError(f"two nodes are called '{name}'")
        if entry["op"] == "input":
            flat.append(name)
        nodes[name] = _node(graph, entry, name, nodes, kinds)
    spec, arguments = _in_spec(data["arguments"], data["positional"], flat)
    out_spec, leaves = spec_of(data["outputs"])
    graph.output(tuple(_output(leaf, nodes) for leaf in leaves))
    graph.set_codegen(_PyTreeCodeGen(_PyTreeInfo(arguments, spec, out_spec)))
    graph.lint()
    module = TracedModule(root, graph)
    register_tensors(module, kinds, tensors, parameters)
    return module


def _checked_kinds(kinds: Any, tensors: dict[str, Tensor]) -> dict[str, str]:
    if not isinstance(kinds, dict) or kinds.keys() != tensors.keys():
        raise ArtifactError("its tensors are not those of the weights file")
    for name, kind in kinds.items():
        if not all(re.fullmatch(r"[\w\-/:@+ ]{1,200}", part) for part in name.split(".")):
            raise ArtifactError(f"{name!r:.80} is not a tensor's name; rename the module that holds it")
        for part in name.split("."):
            if (
                keyword.iskeyword(part)
                or unicodedata.normalize("NFKC", part) != part
                or part.startswith("__")
            ):
                raise ArtifactError(f"{name!r:.80} is not a tensor's name; rename the module that holds it")
        if kind not in _KINDS:
            raise ArtifactError(f"'{name}' is {kind!r:.40}; known are {', '.join(_KINDS)}")
        if kind == PARAMETER and not (tensors[name].is_floating_point() or tensors[name].is_complex()):
            raise ArtifactError(f"'{name}' of type {tensors[name].dtype} has no gradient")
    return kinds


def register_tensors(
    module: nn.Module,
    kinds: dict[str, str],
    tensors: dict[str, Tensor],
    parameters: dict[int, nn.Parameter] | None = None,
) -> None:
    """Put every tensor under its name, in the submodules that the name says, made where they are missing.

    A tensor under two names becomes one parameter; `parameters` are those made before, by tensor.
    """
    made = {} if parameters is None else parameters
    for name, kind in kinds.items():
        *path, leaf = name.split(".")
        owner = module
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner._modules[part]  # type: ignore[assignment]
        owner._buffers.pop(leaf, None)
        tensor = tensors[name]
        if kind not in (PARAMETER, FROZEN):
            owner.register_buffer(leaf, tensor, persistent=kind == BUFFER)
            continue
        if id(tensor) not in made:
            made[id(tensor)] = nn.Parameter(tensor, requires_grad=kind == PARAMETER)
        if leaf in owner._parameters:
            setattr(owner, leaf, made[id(tensor)])  # recurrent layers keep a list of their own up to date
        else:
            owner.register_parameter(leaf, made[id(tensor)])


def plain_name(name: Any) -> str:
    """The name, if it is a plain identifier: fx writes it into the code that it makes.

    >>> plain_name("x); import os; (")
    Traceback (most recent call last):
        ...
    lianzhi.errors.ArtifactError: 'x); import os; (' is not a plain name
    """
    plain = isinstance(name, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,199}", name, re.ASCII)
    if not plain or keyword.iskeyword(name) or name.startswith("__") or name == "self":
        raise ArtifactError(f"{name!r:.80} is not a plain name")
    return str(name)


def _node(
    graph: fx.Graph, entry: Any, name: str, nodes: dict[str, fx.Node], kinds: dict[str, str]
) -> fx.Node:
    """Make one node. Its meta says what kind of value it has, for the check of those that use it."""
    if entry["op"] == "input":
        node, kind = graph.create_node("placeholder", name, name=name), TENSOR
    elif entry["op"] == "read":
        if not isinstance(entry["tensor"], str) or entry["tensor"] not in kinds:
            raise ArtifactError(f"'{name}' reads {entry['tensor']!r:.80}, which is not saved")
        node, kind = graph.create_node("get_attr", entry["tensor"], name=name), TENSOR
    else:
        return _call(graph, entry, name, nodes)
    node.meta["kind"] = kind
    return node


def _call(graph: fx.Graph, entry: Any, name: str, nodes: dict[str, fx.Node]) -> fx.Node:
    target = entry["target"]
    if not is_known(target):
        raise ArtifactError(f"the op {target!r:.80} (at '{name}') is not on the allow-list")
    if not isinstance(entry["args"], list) or not isinstance(entry["kwargs"], dict):
        raise ArtifactError(f"'{name}' has no list of arguments")
    args = tuple(decode(value, nodes) for value in entry["args"])
    kwargs = {key: decode(value, nodes) for key, value in entry["kwargs"].items()}
    bits = None
    if target == "operator.getitem":
        source = args[0] if args else None
        picks = len(args) == 2 and type(args[1]) is int and not kwargs and isinstance(source, fx.Node)
        if not picks or source.meta["kind"] != TENSORS:  # type: ignore[union-attr]
            raise ArtifactError(f"'{name}' does not pick one of several tensors")
        function, kind = operator.getitem, TENSOR
    elif target in sizes.FUNCTIONS:
        if kwargs:
            raise ArtifactError(f"'{name}': {target} takes no keywords")
        function, kind, bits = sizes.FUNCTIONS[target], SYMBOL, sizes.bits_of(target, args)
    else:
        function = _overload(target)
        kind = check_schema(name, function._schema, args, kwargs)
        bits = sizes.SIZE_BITS if kind == SYMBOL else None
    node = graph.create_node("call_function", function, args, kwargs, name=name)
    node.meta.update(kind=kind, bits=bits)
    return node


def _overload(target: str) -> Any:
    _, packet, overload = target.split(".")
    return getattr(getattr(torch.ops.aten, packet), overload)


def _in_spec(arguments: Any, positional: Any, flat: list[str]) -> tuple[Any, list[str]]:
    """The pytree spec of the inputs, and the names of the model's arguments."""
    if (
        not isinstance(arguments, list)
        or type(positional) is not int
        or not 0 <= positional <= len(arguments)
    ):
        raise ArtifactError("its arguments are not described")
    if not all(isinstance(item, list) and len(item) == 2 for item in arguments):
        raise ArtifactError("its arguments are not described")
    names = [plain_name(item[0]) for item in arguments]
    if len(set(names)) != len(names):
        raise ArtifactError("two arguments have the same name")
    whole = {
        "tuple": [
            {"tuple": [tree for _, tree in arguments[:positional]]},
            {"dict": [[name, tree] for name, tree in arguments[positional:]]},
        ]
    }
    spec, leaves = spec_of(whole)
    if leaves != [{"input": name} for name in flat]:
        raise ArtifactError("its arguments are not the inputs of the graph")
    return spec, names


def _output(leaf: Any, nodes: dict[str, fx.Node]) -> Any:
    if not isinstance(leaf, dict) or leaf.keys() != {"value"}:
        raise ArtifactError(f"{str(leaf)[:80]} is not an output")
    value = decode(leaf["value"], nodes)
    if isinstance(value, fx.Node) and value.meta["kind"] not in (TENSOR, SYMBOL):
        raise ArtifactError(f"the output '{value.name}' is {value.meta['kind']}")
    return value
