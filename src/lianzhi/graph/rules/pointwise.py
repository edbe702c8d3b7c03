"""Element-wise ops, reductions and pooling: labels that meet are tied; what runs over channels is frozen."""

from __future__ import annotations

import torch
from torch import fx

from lianzhi.graph.labels import core, varying_dims
from lianzhi.graph.rules.flow import Flow, argument, literal, op_name, overloads, rule, sizes_of, unknown
from lianzhi.graph.rules.norms import over
from lianzhi.graph.trace import shape_of

aten = torch.ops.aten

_SAME = """to _to_copy type_as detach detach_ alias clone contiguous lift_fresh_copy dropout dropout_ feature_dropout
feature_dropout_ alpha_dropout zeros_like ones_like full_like rand_like randn_like"""
_MEET = """relu relu_ relu6 relu6_ gelu gelu_ silu silu_ sigmoid sigmoid_ tanh tanh_ hardswish hardswish_ hardsigmoid
hardsigmoid_ hardtanh hardtanh_ hardshrink softshrink leaky_relu leaky_relu_ elu elu_ selu selu_ celu celu_ rrelu
softplus mish mish_ log_sigmoid threshold threshold_ logit erf exp exp_ expm1 log log1p log2 log10 sqrt sqrt_ rsqrt neg
neg_ abs abs_ square clamp clamp_ clamp_min clamp_min_ clamp_max clamp_max_ sin cos tan sinh cosh atan sign reciprocal
round floor ceil frac trunc nan_to_num bitwise_not logical_not isnan isinf isfinite
add add_ sub sub_ mul mul_ div div_ pow pow_ rsub maximum minimum fmod remainder floor_divide atan2 logaddexp lerp
lerp_ addcmul addcdiv where masked_fill masked_fill_ eq ne lt le gt ge logical_and logical_or logical_xor bitwise_and
bitwise_or bitwise_xor __and__ __or__ __xor__"""


@rule(*overloads(_SAME))
def same(flow: Flow, node: fx.Node) -> None:
    """The first argument's layers; another one gives no more than its type."""
    flow.values[node] = flow.layers(node.args[0])


@rule(*overloads(_MEET))
def elementwise(flow: Flow, node: fx.Node) -> None:
    """Tie the labels that meet."""
    shape = shape_of(node)
    values = [value for value in node.all_input_nodes if shape_of(value) is not None]
    if shape is None:
        unknown(flow, node)
    else:
        flow.put(node, flow.meet(node, values, shape))


@rule(aten.prelu.default)
def prelu(flow: Flow, node: fx.Node) -> None:
    """One slope for all, or one a channel."""
    layers = flow.layers(node.args[0])
    name = flow.tensor(node.args[1])
    if name is None:
        unknown(flow, node)
    elif flow.shapes[name][0] > 1:
        flow.labels.tie(
            flow.axis(name, 0, "slope"), flow.vector(node.args[0], 1, "PReLU has one slope a channel")
        )
    flow.values[node] = layers


@rule(aten.glu.default)
def glu(flow: Flow, node: fx.Node) -> None:
    """The two halves of a dimension meet: tied, and what is left is the half."""
    shape = sizes_of(node)
    dim = int(literal(argument(node, "dim"))) % len(shape)
    layers = []
    for layer in flow.layers(node.args[0]):
        if dim in varying_dims(layer):
            left, right = layer.chunk(2, dim)
            flow.labels.tie(left, right)
            # survivors of both halves are as many, so that the op still cuts in the middle
            layers.append(left)
        else:
            layers.append(core(layer).expand(shape))
    flow.put(node, layers)


_INDICES = {"argmax", "argmin", "max", "min", "any", "all"}  # positions, or nothing that a channel is worth


@rule(
    *overloads(
        "mean sum amax amin max min prod var std logsumexp any all argmax argmin linalg_vector_norm norm var_mean std_mean"
    )
)
def reduce(flow: Flow, node: fx.Node) -> None:
    """Other dimensions pass. One that is reduced over shrinks; all but a sum are then flagged."""
    source = node.args[0]
    names = {entry.name for entry in node.target._schema.arguments}  # type: ignore[union-attr]
    if "other" in names:
        elementwise(flow, node)
        return
    shape = sizes_of(source)
    given = literal(argument(node, "dim")) if "dim" in names else None
    chosen = list(given) if isinstance(given, (list, tuple)) else [given] if given is not None else []
    dims = sorted({dim % len(shape) for dim in chosen} or set(range(len(shape))), reverse=True)
    keep = bool(argument(node, "keepdim")) if "keepdim" in names else False
    if op_name(node) in _INDICES:
        kept = flow.restricted(flow.layers(source), dims, f"{op_name(node)} runs over channels")
    else:
        reason = "" if op_name(node) == "sum" else f"{op_name(node)} runs over the channels that are left"
        kept = over(flow, node, flow.layers(source), dims, reason)
    layers = []
    for layer in kept:
        if varying_dims(layer) & set(dims):
            continue
        for dim in dims:
            layer = layer.narrow(dim, 0, 1) if keep else layer.select(dim, 0)  # noqa: PLW2901
        layers.append(layer)
    if shape_of(node) is None:
        flow.put_parts(node, [layers, layers])
    else:
        flow.put(node, layers)


_POOLS = """max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d max_pool1d_with_indices
max_pool2d_with_indices max_pool3d_with_indices upsample_nearest1d upsample_nearest2d upsample_nearest3d
upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa
_upsample_bicubic2d_aa reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d"""


@rule(*overloads(_POOLS))
def pool(flow: Flow, node: fx.Node) -> None:
    """Pooling and resizing act on each channel alone; nothing that they run over can shrink."""
    source = sizes_of(node.args[0])
    spatial = int(next(digit for digit in op_name(node) if digit.isdigit()))
    dims = range(len(source) - spatial, len(source))
    layers = flow.restricted(flow.layers(node.args[0]), dims, f"{op_name(node)} runs over channels")
    values = node.meta["val"]
    if isinstance(values, torch.Tensor):
        shape = sizes_of(node)
        flow.put(node, [core(layer).expand(shape) for layer in layers])
    else:
        shape = (*source[: len(source) - spatial], *(int(size) for size in values[0].shape[-spatial:]))
        flow.put_parts(node, [[core(layer).expand(shape) for layer in layers] for _ in values])
