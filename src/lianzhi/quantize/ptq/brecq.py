"""BRECQ (2102.05426): rounding is learned block by block, so that a block's output is right, not each layer's.

As in AdaRound ``W~ = s (floor(W / s) + h(V))``, for all weights of a block at once; the least
``mean |B(x^; W~) - B(x; W)|^2 + lambda mean(1 - |2 h(V) - 1|^beta)`` is looked for, where x^ is the block's input with
all errors made so far. Blocks are residual blocks, found in the graph; layers outside of them are rounded by AdaRound.
The authors weigh the error by the squared gradients of the loss, and learn the steps of activations too; here all
outputs weigh the same, and activations keep their calibrated ranges. Each step sees one calibration batch. A block
whose learned rounding is no better than rounding to the nearest keeps that. Weights that are zero stay zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, fx

from lianzhi.graph import TracedModule, get_tensor
from lianzhi.quantize.affine import along
from lianzhi.quantize.placement import layer_name
from lianzhi.quantize.placement.ops import weight_axis
from lianzhi.quantize.ptq.adaround import Adaround, penalty, raised, round_layer_, undecided
from lianzhi.quantize.ptq.blocks import Block, residual_blocks
from lianzhi.quantize.ptq.grams import obstacle
from lianzhi.quantize.ptq.technique import ROUND, Skipped, TechniqueConfig, registry
from lianzhi.quantize.ptq.walk import Environment, Layer, Weight, evaluate, values_of, weight_of

Output = Callable[[list[Tensor], int], Tensor]


class Brecq(TechniqueConfig):
    """`steps` of Adam a block at rate `lr`; `regularization`: how hard h(V) is pushed to 0 or 1."""

    stage: ClassVar[int] = ROUND
    steps: int = Field(default=300, ge=1)
    lr: float = Field(default=0.05, gt=0)
    regularization: float = Field(default=1.0, ge=0)


@registry.register("brecq", "learn to round, a block at a time", paper="2102.05426", config=Brecq)
def apply(
    floating: TracedModule, quantized: TracedModule, batches: list[Any], names: list[str], options: Brecq
) -> Skipped:
    """Round the weights of these ops, in place, from the first block or layer to the last."""
    twins = {node.name: node for node in floating.graph.nodes}
    blocks: dict[fx.Node, tuple[Block, list[fx.Node]]] = {}
    for block in residual_blocks(quantized):
        inside = [node for node in block.nodes if node.name in names]
        blocks |= dict.fromkeys(inside, (block, inside))
    skipped, done = [], set()
    for node in [item for item in quantized.graph.nodes if item.name in names]:
        if node in blocks:
            block, inside = blocks[node]
            if block.last not in done:
                _round_block(quantized, block, inside, twins[block.last.name], floating, batches, options)
            done.add(block.last)
        elif obstacle(node):
            skipped.append((layer_name(node), obstacle(node)))
        else:
            source, exact = node.args[0], twins[node.name].args[0]
            layer = Layer(
                node,
                twins[node.name],
                [values[source] for values in values_of(quantized, [source], batches)],  # type: ignore[list-item,index]
                [values[exact] for values in values_of(floating, [exact], batches)],  # type: ignore[list-item,index]
            )
            round_layer_(quantized, layer, Adaround(**options.to_dict()))
    return skipped


def brecq(
    output: Output,
    targets: list[Tensor],
    weights: list[Tensor],
    scales: list[Tensor],
    qmin: int,
    qmax: int,
    *,
    steps: int = 300,
    lr: float = 0.05,
    regularization: float = 1.0,
) -> list[Tensor]:
    """The weights of a block, each rounded up or down to the grid, with which its output is close to the targets.

    >>> inputs, weight = torch.ones(8, 2), torch.tensor([[0.45, 0.35]])
    >>> rounded = brecq(lambda w, _: inputs @ w[0].T, [inputs @ weight.T], [weight], [torch.ones(1, 1)], -7, 7)
    >>> float(rounded[0].sum())  # 0.8 is nearer to 1 than to 0
    1.0

    ``output(weights, index)`` is the output on batch `index`; a scale broadcasts against its weight.
    """
    floors = [(weight / scale).floor() for weight, scale in zip(weights, scales, strict=True)]
    kept = [(weight != 0).to(weight.dtype) for weight in weights]  # a pruned weight is not rounded up
    choices = [
        undecided(weight / scale - floor).requires_grad_()
        for weight, scale, floor in zip(weights, scales, floors, strict=True)
    ]

    def on_grid(ups: list[Tensor]) -> list[Tensor]:
        return [
            (floor + up).clamp(qmin, qmax) * scale
            for floor, up, scale in zip(floors, ups, scales, strict=True)
        ]

    def error(values: list[Tensor], index: int) -> Tensor:
        return (output(values, index) - targets[index]).square().mean()

    def total(values: list[Tensor]) -> float:
        with torch.no_grad():
            return sum(float(error(values, index)) for index in range(len(targets))) / len(targets)

    nearest = [
        (weight / scale).round().clamp(qmin, qmax) * scale
        for weight, scale in zip(weights, scales, strict=True)
    ]
    unit = max(total(nearest), torch.finfo(torch.float32).tiny)
    optimizer = torch.optim.Adam(choices, lr=lr)
    for step in range(steps):
        with torch.enable_grad():
            ups = [raised(choice) * free for choice, free in zip(choices, kept, strict=True)]
            flat = torch.cat([up.flatten() for up in ups])
            loss = error(on_grid(ups), step % len(targets)) / unit
            loss = loss + regularization * penalty(flat, step / steps)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    learned = on_grid([(choice.detach() >= 0) * free for choice, free in zip(choices, kept, strict=True)])
    return learned if total(learned) <= unit else nearest


def _round_block(
    quantized: TracedModule,
    block: Block,
    inside: list[fx.Node],
    exact: fx.Node,
    floating: TracedModule,
    batches: list[Any],
    options: Brecq,
) -> None:
    """Round the weights of one block, in place."""
    targets = [values[exact] for values in values_of(floating, [exact], batches)]
    known = values_of(quantized, block.reads, batches)
    inside = list({node.args[1]: node for node in inside}.values())  # a weight that is used twice once
    quantizers: dict[Any, Weight] = {node.args[1]: weight_of(quantized, node) for node in inside}
    found = list(quantizers.values())
    tensors = [get_tensor(quantized, item.name) for item in found]
    rounded = brecq(
        lambda values, index: _run(
            quantized, block, known[index], dict(zip(quantizers, values, strict=True))
        ),
        targets,
        [tensor.detach() for tensor in tensors],
        [
            along(item.scale, tensor, weight_axis(node))
            for item, tensor, node in zip(found, tensors, inside, strict=True)
        ],
        found[0].qmin,
        found[0].qmax,
        **options.to_dict(),
    )
    with torch.no_grad():
        for tensor, values in zip(tensors, rounded, strict=True):
            tensor.copy_(values)


def _run(module: TracedModule, block: Block, known: Environment, learned: dict[Any, Tensor]) -> Tensor:
    """The output of a block with other weights in the place of its quantized ones."""
    environment: Environment = {**known, **learned}

    def value(node: fx.Node) -> Any:
        return environment[node] if node in environment else evaluate(module, node)

    for node in block.nodes:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), value)
        target: Any = node.target
        schema = getattr(target, "_schema", None)
        if schema is not None and schema.is_mutable:
            args = (args[0].clone(), *args[1:])
        environment[node] = target(*args, **kwargs)
    result: Tensor = environment[block.last]
    return result
