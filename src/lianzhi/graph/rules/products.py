"""Products of two values: matmul, bmm, einsum, attention. All are one primitive, `contract`.

The operands meet on the indices that they share, as in an element-wise product; then some indices are summed
over. Labels that stand on summed indices alone are consumed. Labels that stand on summed *and* kept indices
(the channels of attention heads) have a policy: whole heads go, or (`Flow.inner`) a dimension in every head.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import torch
from torch import fx

from lianzhi.graph.labels import core, varying_dims
from lianzhi.graph.rules.flow import (
    HEADS,
    IN,
    INSIDE,
    OUT,
    Flow,
    Layers,
    Lifted,
    Shape,
    argument,
    op_name,
    rule,
    sizes_of,
    stop,
    unknown,
)

aten = torch.ops.aten
Operand = tuple[str, Shape, Layers]  # index letters, shape, label layers


def contract(
    flow: Flow, node: fx.Node, operands: Sequence[Operand], output: str, *, weighted: bool = False
) -> Layers:
    """The layers of a product whose operands have these index letters and whose result has those of `output`.

    `weighted` says that one of them is a parameter.
    """
    summed = sorted({letter for letters, _, _ in operands for letter in letters} - set(output))
    letters = output + "".join(summed)
    sizes = dict.fromkeys(letters, 1)
    for own, shape, _ in operands:
        for letter, size in zip(own, shape, strict=True):
            sizes[letter] = max(sizes[letter], size)
    full = tuple(sizes[letter] for letter in letters)
    lifted = [_lift(operand, letters) for operand in operands]
    inside = set(range(len(output), len(letters)))
    common = set(operands[0][0]).intersection(*(own for own, _, _ in operands[1:])) & set(output)
    shared = {letters.index(letter) for letter in common}
    result = []
    for layer in flow.meet_lifted(node, lifted, full):
        dims = varying_dims(layer)
        both = bool(dims & inside) and not dims <= inside
        left = layer
        if both:
            if not weighted:
                flow.mark(INSIDE if flow.inner else HEADS, layer)
            along = dims - inside if flow.inner else dims & inside
            for dim in along:
                first = left.narrow(dim, 0, 1)
                flow.labels.tie(left, first)
                left = first
            left = left.expand(full)
        if dims <= inside or (both and flow.inner):
            flow.runs_over(node, [left])
            if dims <= inside and not weighted:
                flow.mark(INSIDE, left)
            continue
        if dims & shared and not weighted:
            same = flow.restrict(left, shared, "") if flow.inner and not dims <= shared else None
            left = left if same is None else same  # a dimension of every head, or a head
            flow.mark(HEADS if same is None else INSIDE, left)
        for dim in sorted(inside, reverse=True):
            left = left.select(dim, 0)
        result.append(left)
    return result


def _lift(operand: Operand, letters: str) -> Lifted:
    """An operand's extents and layers on all the indices of the product."""
    own, shape, layers = operand
    extents = [1] * len(letters)
    for letter, size in zip(own, shape, strict=True):
        extents[letters.index(letter)] = size
    order = sorted(range(len(own)), key=lambda dim: letters.index(own[dim]))
    by_dims: dict[frozenset[int], Layers] = {}
    for layer in layers:
        dims = frozenset(letters.index(own[dim]) for dim in varying_dims(layer))
        small = core(layer).permute(order)
        view = [1] * len(letters)
        for place, dim in enumerate(order):
            view[letters.index(own[dim])] = small.shape[place]
        by_dims.setdefault(dims, []).append(small.reshape(view))
    return extents, by_dims


def _operand(flow: Flow, value: fx.Node, letters: str, output: str) -> Operand:
    """A value as an operand. A parameter's axes are known as inputs or outputs of this product."""
    shape = sizes_of(value)
    base, axes = _base(value)
    name = flow.tensor(base)
    if name in flow.trained and len(shape) == len(letters):
        for dim, letter in enumerate(letters):
            if shape[dim] > 1:
                flow.axis(str(name), axes[dim], OUT if letter in output else IN)
    return letters, shape, flow.layers(value)


def _is_weight(flow: Flow, values: Sequence[fx.Node]) -> bool:
    return any(flow.tensor(_base(value)[0]) in flow.trained for value in values)


def _base(value: fx.Node) -> tuple[fx.Node, list[int]]:
    """What a chain of transposes reads, and which of its axes each dimension is."""
    base, axes = value, list(range(len(sizes_of(value))))
    while base.op == "call_function" and base.target in (
        aten.t.default,
        aten.transpose.int,
        aten.numpy_T.default,
    ):
        if base.target is aten.transpose.int:
            first, second = (int(dim) % len(axes) for dim in base.args[1:3])  # type: ignore[arg-type]
        else:
            first, second = 0, len(axes) - 1
        axes[first], axes[second] = axes[second], axes[first]
        base = base.args[0]  # type: ignore[assignment]
    return base, axes


def _matmul_letters(left: int, right: int) -> tuple[str, str, str]:
    """Index letters of `torch.matmul` for operands of these ranks."""
    if left == 1 and right == 1:
        return "k", "k", ""
    if left == 1:
        batch = string.ascii_lowercase[: right - 2]
        return "k", f"{batch}kN", f"{batch}N"
    if right == 1:
        batch = string.ascii_lowercase[: left - 2]
        return f"{batch}Mk", "k", f"{batch}M"
    letters = string.ascii_uppercase[: max(left, right) - 2].replace("M", "x").replace("N", "y")
    mine, theirs = letters[len(letters) - left + 2 :], letters[len(letters) - right + 2 :]
    return f"{mine}Mk", f"{theirs}kN", f"{letters}MN"


@rule(aten.matmul.default, aten.bmm.default, aten.mm.default, aten.mv.default, aten.dot.default)
def matmul(flow: Flow, node: fx.Node) -> None:
    """(…, m, k) times (…, k, n)."""
    left, right = node.args[:2]
    flow.put(node, _matmul(flow, node, left, right))  # type: ignore[arg-type]


def _matmul(flow: Flow, node: fx.Node, left: fx.Node, right: fx.Node) -> Layers:
    mine, theirs, output = _matmul_letters(len(sizes_of(left)), len(sizes_of(right)))
    operands = [_operand(flow, left, mine, output), _operand(flow, right, theirs, output)]
    return contract(flow, node, operands, output, weighted=_is_weight(flow, [left, right]))


@rule(aten.addmm.default, aten.baddbmm.default, aten.addbmm.default, aten.addmv.default)
def addmm(flow: Flow, node: fx.Node) -> None:
    """A product, to which a value is added."""
    if node.target is aten.addbmm.default:
        unknown(flow, node)
        return
    added, left, right = node.args[:3]
    shape = sizes_of(node)
    name = flow.tensor(added)
    if name in flow.trained and len(flow.shapes[str(name)]) == 1:
        flow.axis(str(name), 0, "bias")
    product = _matmul(flow, node, left, right)  # type: ignore[arg-type]
    lifted: Lifted = (list(shape), {})
    for layer in product:
        dims = varying_dims(layer)
        lifted[1].setdefault(dims, []).append(core(layer.expand(shape)))
    flow.put(node, flow.meet_lifted(node, [flow.lifted(added, shape), lifted], shape))  # type: ignore[arg-type]


@rule(aten.einsum.default)
def einsum(flow: Flow, node: fx.Node) -> None:
    """Any product by index letters; a letter twice in one operand, or an ellipsis, has no rule."""
    equation, values = str(node.args[0]).replace(" ", ""), list(node.args[1])  # type: ignore[arg-type]
    inputs, arrow, output = equation.partition("->")
    terms = inputs.split(",")
    if "." in equation or any(len(set(term)) < len(term) for term in terms):
        stop(flow, node, f"there is no rule for an einsum like {equation}")
        return
    if not arrow:
        output = "".join(sorted(letter for letter in set(inputs) - {","} if inputs.count(letter) == 1))
    operands = [_operand(flow, value, term, output) for value, term in zip(values, terms, strict=True)]
    flow.put(node, contract(flow, node, operands, output, weighted=_is_weight(flow, values)))


@rule(aten.scaled_dot_product_attention.default)
def attention(flow: Flow, node: fx.Node) -> None:
    """Scores = query · keyᵀ (+ mask), softmax over the keys, times value. The scale is pinned later."""
    query, key, value = node.args[:3]
    mask = argument(node, "attn_mask")
    q, k, v = (sizes_of(item) for item in (query, key, value))
    ranks = {len(q), len(k), len(v)}
    if len(ranks) != 1 or len(q) < 2:
        stop(flow, node, f"{op_name(node)} of values of different ranks")
        return
    batch = string.ascii_lowercase[: len(q) - 2]
    keys, values = flow.layers(key), flow.layers(value)
    if bool(argument(node, "enable_gqa")) and len(q) > 2 and q[-3] != k[-3]:
        times = q[-3] // k[-3]
        keys, k = [_repeated(layer, times) for layer in keys], (*k[:-3], q[-3], *k[-2:])
        values, v = [_repeated(layer, times) for layer in values], (*v[:-3], q[-3], *v[-2:])
    operands: list[Operand] = [(f"{batch}LE", q, flow.layers(query)), (f"{batch}SE", k, keys)]
    if isinstance(mask, fx.Node):
        shape = sizes_of(mask)
        operands.append((f"{batch}LS"[len(q) - len(shape) :], shape, flow.layers(mask)))
    scores = contract(flow, node, operands, f"{batch}LS")
    scores = flow.settled(scores)
    shape = (*(max(a, b) for a, b in zip(q[:-2], k[:-2], strict=True)), q[-2], k[-2])
    parts = [(f"{batch}LS", shape, scores), (f"{batch}SV", v, values)]
    flow.put(node, contract(flow, node, parts, f"{batch}LV"))


def _repeated(layer: torch.Tensor, times: int) -> torch.Tensor:
    """Key/value heads as query heads see them: each several times in a row."""
    return layer.repeat_interleave(times, layer.dim() - 3)
