"""TensorRT on a GPU: symmetric quantizers on the inputs of convolutions, deconvolutions and matrix products.

The builder moves quantizers through pooling, reshapes and concatenations by itself, and computes convolution,
bias, residual sum and ReLU in one kernel: nothing stands between them, and of a sum only the branch that does
not come from the kernel is quantized. The inputs of a concatenation share one scale. Layers that run no faster
in int8 stay float: few channels (but for the first layer), products with a side below 16, and products of a
matrix and a vector, as a classifier's at batch 1. Embedding tables stay float: the builder takes stored integers before
a DequantizeLinear alone, and what it dequantizes before the look-up is a float table in the engine.
"""

from __future__ import annotations

from torch import fx

from lianzhi.graph import TracedModule, get_tensor
from lianzhi.quantize.placement import ops
from lianzhi.quantize.placement.plan import Rules, source

LEAST = 16


def obstacle(module: TracedModule, node: fx.Node) -> str:
    """Why a layer is not faster in int8, or ""."""
    weight = get_tensor(module, str(node.args[1].target))  # type: ignore[union-attr]
    if node.target in ops.LINEAR:
        if min(weight.shape) < LEAST:
            return f"a product with a side below {LEAST} ({weight.shape[1]} to {weight.shape[0]}) is no faster in int8"
        if node.meta["val"].dim() == 2:
            return "at batch 1 it is a product of a matrix and a vector, which is no faster in int8"
        return ""
    if source(node.args[0]).op == "placeholder":
        return ""
    read, made = source(node.args[0]).meta["val"].shape[1], node.meta["val"].shape[1]
    if min(read, made) < LEAST:
        return f"a convolution of fewer than {LEAST} channels ({read} to {made}) is no faster in int8"
    return ""


RULES = Rules(
    weighted=frozenset(ops.WEIGHTED | ops.TRANSPOSED),
    output_of=frozenset(),
    elementwise=frozenset(ops.SUMS | ops.CONCATS),
    moves=frozenset(),
    adds_inside=True,
    adds_outside=False,
    concats_share=True,
    obstacle=obstacle,
    float_tables="the builder makes the whole table float before it looks rows up, so the engine would be no smaller",
)
