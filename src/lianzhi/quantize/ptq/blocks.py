"""Residual blocks, found in a graph: one value goes in, one comes out, and a sum with a branch around it is inside.

Sizes and masks, which no parameter has a part in, may enter anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from lianzhi.graph import TracedModule
from lianzhi.quantize.placement.ops import SUMS
from lianzhi.quantize.placement.plan import tail
from lianzhi.quantize.ptq.walk import constants_of


@dataclass(frozen=True)
class Block:
    """The ops between two values, in order; what they read of others is in `reads`."""

    nodes: list[fx.Node]
    reads: list[fx.Node]

    @property
    def last(self) -> fx.Node:
        """The op whose result leaves the block."""
        return self.nodes[-1]


def residual_blocks(module: TracedModule) -> list[Block]:
    """All blocks around a sum of two computed values, without those that hold a smaller one.

    A block with a second output is none.
    """
    nodes = [node for node in module.graph.nodes if node.op != "output"]
    constants = constants_of(nodes)
    carried = _carried(module, nodes, constants)
    above = _dominators(nodes, carried)
    taken: set[fx.Node] = set()
    blocks = []
    for node in nodes:
        first = above.get(node)
        if node.target not in SUMS or first is None or not carried.issuperset(node.args[:2]):  # type: ignore[arg-type]
            continue
        inside = _between(first, tail(node), carried)
        if taken.isdisjoint(inside) and _closed(inside, tail(node)):
            taken |= inside
            ordered = [item for item in nodes if item in inside]
            sources = dict.fromkeys(source for item in ordered for source in item.all_input_nodes)
            reads = [item for item in sources if item not in inside and item not in constants]
            blocks.append(Block(ordered, reads))
    return blocks


def _carried(module: TracedModule, nodes: list[fx.Node], constants: set[fx.Node]) -> set[fx.Node]:
    """Values that come of float inputs or of parameters, and are no constants."""
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    found: set[fx.Node] = set()
    for node in nodes:
        value = node.meta.get("val")
        if node in constants or not isinstance(value, torch.Tensor):
            continue
        made = any(item in found or str(item.target) in parameters for item in node.all_input_nodes)
        if made or (node.op == "placeholder" and value.is_floating_point()):
            found.add(node)
    return found


def _dominators(nodes: list[fx.Node], carried: set[fx.Node]) -> dict[fx.Node, fx.Node | None]:
    """The last value before each node that all paths to it go through; None where there is none."""
    above: dict[fx.Node, fx.Node | None] = {}
    place = {node: index for index, node in enumerate(nodes)}
    for node in [item for item in nodes if item in carried]:
        sources = [item for item in node.all_input_nodes if item in carried]
        common: fx.Node | None = sources[0] if sources else None
        for source in sources[1:]:
            other: fx.Node | None = source
            while common is not other and common is not None and other is not None:
                if place[common] > place[other]:
                    common = above[common]
                else:
                    other = above[other]
            common = common if common is other else None
        above[node] = common
    return above


def _between(first: fx.Node, last: fx.Node, carried: set[fx.Node]) -> set[fx.Node]:
    """The ops on the paths from one value to another, with the other."""
    found: set[fx.Node] = set()
    waiting = [last]
    while waiting:
        node = waiting.pop()
        if node is first or node in found or node not in carried:
            continue
        found.add(node)
        waiting += node.all_input_nodes
    return found


def _closed(inside: set[fx.Node], last: fx.Node) -> bool:
    """Whether nothing but the last result is read elsewhere."""
    return all(node is last or inside.issuperset(node.users) for node in inside)
