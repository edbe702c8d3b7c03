"""Shapes: reshaping, cutting, joining, picking."""

from __future__ import annotations

from lianzhi.deploy.oneflow.code.call import Call
from lianzhi.deploy.oneflow.code.prepare import FULL
from lianzhi.deploy.oneflow.code.table import add, writes

add(
    {
        "view.default": "{self}.reshape({size})",
        "reshape.default": "{self}.reshape({shape})",
        "transpose.int": "{self}.transpose({dim0}, {dim1})",
        "permute.default": "{self}.permute({dims})",
        "t.default": "{self}.transpose(0, 1)",
        "unsqueeze.default": "{self}.unsqueeze({dim})",
        "squeeze.dim": "{self}.squeeze({dim})",
        "cat.default": "flow.cat({tensors}, dim={dim})",
        "stack.default": "flow.stack({tensors}, dim={dim})",
        "chunk.default": "flow.chunk({self}, {chunks}, dim={dim})",
        "split.Tensor": "flow.split({self}, {split_size}, dim={dim})",
        "split_with_sizes.default": "flow.split({self}, {split_sizes}, dim={dim})",
        "split.sizes": "flow.split({self}, {split_size}, dim={dim})",
        "unbind.int": "flow.unbind({self}, {dim})",
        "gather.default": "flow.gather({self}, {dim}, {index})",
        "index_select.default": "flow.index_select({self}, {dim}, {index})",
        "flip.default": "flow.flip({self}, {dims})",
        "roll.default": "flow.roll({self}, {shifts}, {dims})",
        "repeat.default": "{self}.repeat({repeats})",
        "tril.default": "flow.tril({self}, {diagonal})",
        "triu.default": "flow.triu({self}, {diagonal})",
        "operator.getitem": "{a}[{b}]",
        "clone.default": "{self}.clone()",
    }
)


@writes("flatten.using_ints")
def flatten(call: Call) -> str:
    """Dimensions in a row made one."""
    end = "" if call.value("end_dim") == -1 else f", {call['end_dim']}"
    return f"flow.flatten({call['self']}, {call['start_dim']}{end})"


@writes("unflatten.int")
def unflatten(call: Call) -> str:
    """A dimension made several."""
    sizes, dim = call.value("sizes"), call.value("dim") % len(call.shape("self"))
    before = [f"{call['self']}.shape[{place}]" for place in range(dim)]
    after = [f"{call['self']}.shape[{place}]" for place in range(dim + 1, len(call.shape("self")))]
    return f"{call['self']}.reshape([{', '.join([*before, *map(call.source, sizes), *after])}])"


@writes("expand.default")
def expand(call: Call) -> str:
    """The same values, as often as a larger shape asks for."""
    return f"{call['self']}.expand({', '.join(call.source(size) for size in call.value('size'))})"


@writes("select.int")
def select(call: Call) -> str:
    """One place along a dimension, which is gone then."""
    return f"{call['self']}[{_before(call)}{call['index']}]"


@writes("slice.Tensor")
def cut(call: Call) -> str:
    """Places from one to before another, by a step."""
    start, end, step = (call.value(name) for name in ("start", "end", "step"))
    first = "" if start in (None, 0) else call["start"]
    last = "" if end is None or (isinstance(end, int) and end == FULL) else call["end"]
    return f"{call['self']}[{_before(call)}{first}:{last}{'' if step == 1 else ':' + call['step']}]"


def _before(call: Call) -> str:
    """The dimensions before the one that is cut, which are taken whole."""
    dim = call.value("dim")
    return ":, " * (dim % len(call.shape("self")))


@writes("index.Tensor")
def index(call: Call) -> str:
    """Places by tensors of whole numbers."""
    places = [":" if item is None else call.source(item) for item in call.value("indices")]
    return f"{call['self']}[{', '.join(places)}]"
