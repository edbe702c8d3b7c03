"""The body of `forward`: a line an operation, in the order of the graph.

A variable's name is given again when its value is read no more, as one would write it by hand, and so that memory is
free again: ``x`` and its neighbours are floats, ``index`` whole numbers, ``mask`` booleans, ``batch``, ``length`` and
``size`` Python's own numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from lianzhi.deploy.oneflow.code.call import Call, literal
from lianzhi.deploy.oneflow.code.constants import constant
from lianzhi.deploy.oneflow.code.names import Names, path, tensor
from lianzhi.deploy.oneflow.code.table import key_of, source_of

_FLOATS = ["x", "y", "z", "u", "v", "w"]


class Forward:
    """Writes the lines; `helpers` are the functions that they call, `imports` the modules.

    `kept` are the names of tensors that the model holds; the graph's other ones are `constants`.
    """

    def __init__(
        self, graph: fx.Graph, kept: set[str], constants: dict[str, Tensor], *, tokens: bool
    ) -> None:
        self.lines: list[str] = []
        self.helpers: set[str] = set()
        self.imports: set[str] = set()
        self._graph, self._kept, self._constants, self._tokens = graph, kept, constants, tokens
        self._names, self._given = Names(), dict[fx.Node, str]()
        self._last = {source: node for node in graph.nodes for source in node.all_input_nodes}
        self._block: list[str] = []
        self.arguments = [self._keep(node) for node in graph.nodes if node.op == "placeholder"]
        self._device = f"{self.arguments[0]}.device"

    def write(self) -> None:
        """Write every operation."""
        for node in self._graph.nodes:
            if node.op == "call_function":
                self._operation(node)

    def value(self, item: Any) -> str:
        """An output as source."""
        if isinstance(item, fx.Node) and item.op == "get_attr":
            self._read(item)
        return self._source(item) if isinstance(item, fx.Node) else literal(item)

    def _keep(self, node: fx.Node) -> str:
        self._given[node] = self._names.keep(str(node.target))
        return self._given[node]

    def _operation(self, node: fx.Node) -> None:
        for source in node.all_input_nodes:
            if source.op == "get_attr":
                self._read(source)
        self._enter(node)
        call = Call(node, self._source, self._device)
        text = source_of(call)
        self.helpers |= call.helpers
        self.imports |= {"math"} if key_of(node).startswith("math.") else set()
        self._assign(node, text)

    def _read(self, node: fx.Node) -> None:
        """Make a constant when it is read first; what the model holds is there."""
        if self._is_held(node) or node in self._given:
            return
        text = constant(self._constants[str(node.target)], self._device)
        assert text is not None, "long constants are kept by the model"
        self._assign(node, text)

    def _assign(self, node: fx.Node, text: str) -> None:
        """Give the value a name, if it can be that of an argument which is read for the last time."""
        pool = self._pool(node)
        mine = [
            source for source in node.all_input_nodes if source in self._given and source.op != "placeholder"
        ]
        dying = [source for source in mine if self._last[source] is node]
        for source in dying:
            self._names.free(self._given[source])
        reused = [self._given[source] for source in dying if self._given[source].partition("_")[0] in pool]
        wanted = min(
            reused, key=lambda name: (len(name), _FLOATS.index(name) if name in _FLOATS else 0), default=""
        )
        name = self._names.take([wanted] if wanted else pool)
        self._given[node] = name
        if text != name:
            self.lines.append(f"{name} = {text}")

    def _pool(self, node: fx.Node) -> list[str]:
        value = node.meta.get("val")
        if isinstance(value, Tensor) or node.op == "get_attr":
            kind = value.dtype if isinstance(value, Tensor) else self._constants[str(node.target)].dtype
            return ["mask"] if kind == torch.bool else _FLOATS if kind.is_floating_point else ["index"]
        if isinstance(value, (tuple, list)):
            return ["parts"]
        of_input = isinstance(node.args[0], fx.Node) and node.args[0].op == "placeholder"
        free = {0: ["batch"], 1: ["length"] if self._tokens else ["size"]}
        return (
            free.get(node.args[1], ["size"]) if key_of(node) == "aten.sym_size.int" and of_input else ["size"]
        )

    def _enter(self, node: fx.Node) -> None:
        """Where the tensors of an operation lie, once for all operations of one block of layers."""
        held = [str(source.target) for source in node.all_input_nodes if self._is_held(source)]
        if not held or _block_of(held[0]) == self._block:
            return
        self._block = _block_of(held[0])
        self.lines.append("")
        if self._block:
            self.lines.append(f"block = self{path(self._block)}")

    def _is_held(self, node: fx.Node) -> bool:
        return node.op == "get_attr" and str(node.target) in self._kept

    def _source(self, node: fx.Node) -> str:
        if not self._is_held(node):
            return self._given[node]
        parts = str(node.target).split(".")
        if self._block and parts[: len(self._block)] == self._block:
            return tensor("block", parts[len(self._block) :])
        return tensor("self", parts)


def _block_of(name: str) -> list[str]:
    """The part that holds the layer that holds the tensor."""
    return name.split(".")[:-2]
