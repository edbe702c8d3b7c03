"""Run the float and the quantized graph side by side, one op at a time over all batches.

A technique sees each quantized layer just before it runs, with all errors made so far in its input, and may
change its weight and bias; the layers after it then see the result.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from lianzhi.graph import TracedModule, get_tensor
from lianzhi.quantize.affine import FAKE_TENSOR, FAKE_WEIGHT, along, round_to_grid

Environment = dict[fx.Node, Any]


@dataclass(frozen=True)
class Weight:
    """A quantized weight: where it is kept, its scale ``(out,)`` or ``(out, groups)``, its grid."""

    name: str
    scale: Tensor
    qmin: int
    qmax: int

    def scale_of(self, matrix: Tensor) -> Tensor:
        """The scale of a weight ``(groups, out, features)``: ``(groups, out)``, or one for each value."""
        if self.scale.dim() == 2:
            return along(self.scale, matrix[0], 1)[None]
        return self.scale.reshape(matrix.shape[:2])


@dataclass(frozen=True)
class Layer:
    """An op with a quantized weight about to run.

    `inputs`: what it reads, a tensor a batch; `exact`: what the same op of the float graph reads. On a walk `values` and
    `exact_values` are all that both graphs still need.
    """

    node: fx.Node
    exact_node: fx.Node
    inputs: list[Tensor]
    exact: list[Tensor]
    values: list[Environment] = field(default_factory=list)
    exact_values: list[Environment] = field(default_factory=list)

    def give(self, found: list[Tensor], expected: list[Tensor]) -> None:
        """Take these as the results of this op and of that of the float graph, which are then not run."""
        for node, values, results in (
            (self.node, self.values, found),
            (self.exact_node, self.exact_values, expected),
        ):
            for environment, result in zip(values, results, strict=True):
                environment[node] = result


def layers(
    floating: TracedModule, quantized: TracedModule, batches: list[Any], names: Collection[str]
) -> Iterator[Layer]:
    """The ops of these names in order."""
    other = _walk(floating, batches)
    for node, environments in _walk(quantized, batches):
        if node.name in names:
            exact_node, exact = next(pair for pair in other if pair[0].name == node.name)
            source, exact_source = node.args[0], exact_node.args[0]
            yield Layer(
                node,
                exact_node,
                [environment[source] for environment in environments],  # type: ignore[index]
                [environment[exact_source] for environment in exact],  # type: ignore[index]
                environments,
                exact,
            )


def weight_of(module: TracedModule, node: fx.Node) -> Weight:
    """The quantized weight that an op reads."""
    quantizer: Any = node.args[1]
    assert quantizer.target in FAKE_WEIGHT
    weight, scale, _, _, qmin, qmax = quantizer.args
    return Weight(str(weight.target), get_tensor(module, str(scale.target)).detach(), qmin, qmax)


def evaluate(module: TracedModule, node: Any) -> Any:
    """The value of a node that depends on no input: a parameter, or what is computed of parameters."""
    if node.op == "get_attr":
        return get_tensor(module, str(node.target)).detach()
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda item: evaluate(module, item))
    return node.target(*args, **kwargs)


def run(module: TracedModule, node: fx.Node, inputs: list[Tensor]) -> list[Tensor]:
    """The results of an op with weights on other inputs, with its weight and bias as they are now."""
    args, kwargs = fx.node.map_arg(((None, *node.args[1:]), node.kwargs), lambda item: evaluate(module, item))
    return [node.target(value, *args[1:], **kwargs) for value in inputs]  # type: ignore[operator]


def values_of(module: TracedModule, nodes: Collection[fx.Node], batches: list[Any]) -> list[Environment]:
    """The values of some nodes, a dict a batch; nothing is run that stands after the last of them."""
    kept: list[Environment] = [{} for _ in batches]

    def keep(environments: list[Environment]) -> bool:
        for node in [item for item in nodes if item not in kept[0] and item in environments[0]]:
            for held, environment in zip(kept, environments, strict=True):
                held[node] = environment[node]
        return len(kept[0]) == len(set(nodes))

    environments: list[Environment] = []
    for _, environments in _walk(module, batches):
        if keep(environments):
            return kept
    keep(environments)
    return kept


def _walk(module: TracedModule, batches: list[Any]) -> Iterator[tuple[fx.Node, list[Environment]]]:
    """Each op before it runs, with the values that are still needed, a dict a batch."""
    nodes = list(module.graph.nodes)
    constants = constants_of(nodes)
    last = {source: node for node in nodes for source in node.all_input_nodes}
    ends: dict[fx.Node, list[fx.Node]] = {}
    for source, node in last.items():
        ends.setdefault(node, []).append(source)
    environments: list[Environment] = [{} for _ in batches]
    position = 0
    for node in nodes:
        if node.op == "placeholder":
            for environment, batch in zip(environments, batches, strict=True):
                environment[node] = batch[position]
            position += 1
            continue
        if node in constants or node.op == "output":
            continue
        yield node, environments
        with torch.no_grad():
            operation = round_to_grid if node.target is FAKE_TENSOR else node.target
            fixed = {item: evaluate(module, item) for item in node.all_input_nodes if item in constants}
            for environment in environments:
                if node not in environment:
                    known = {**environment, **fixed}
                    args, kwargs = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
                    environment[node] = operation(*args, **kwargs)
                for source in ends.get(node, []):
                    environment.pop(source, None)


def constants_of(nodes: list[fx.Node]) -> set[fx.Node]:
    """Nodes that depend on no input: evaluated when they are read, since techniques change them."""
    found: set[fx.Node] = set()
    for node in nodes:
        sources = node.all_input_nodes
        if node.op == "get_attr" or (node.op == "call_function" and sources and found.issuperset(sources)):
            found.add(node)
    return found
