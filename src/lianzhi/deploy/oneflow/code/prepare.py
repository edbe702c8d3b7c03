"""A captured graph made ready to be written: no operation in place, none that changes nothing, none that nobody uses."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from lianzhi.deploy.oneflow.code.call import bound
from lianzhi.errors import TargetError
from lianzhi.graph import shape_of

aten = torch.ops.aten
FULL = (1 << 63) - 1  # the end of a slice that has none

# what gives the storage of its first argument, or its very values
_SHARING = """
alias detach view view_as reshape flatten unflatten expand expand_as transpose permute swapaxes movedim t mT numpy_T
slice select narrow diagonal unfold squeeze unsqueeze split split_with_sizes chunk unbind contiguous to
"""
_VIEWS = frozenset(_SHARING.split())
_SAME = frozenset({"alias", "detach", "clone", "contiguous", "lift_fresh_copy"})


def prepared(graph: fx.Graph) -> fx.Graph:
    """A copy of the graph with the same values, of operations that only compute.

    Raises `TargetError` that names an operation in place whose effect is seen through another tensor.
    """
    made = fx.Graph()
    made.output(made.graph_copy(graph, {}))
    for node in list(made.nodes):
        if "_assert" in str(node.target) or "sym_constrain" in str(node.target):
            made.erase_node(node)
    for node in made.nodes:
        if is_in_place(node):
            _out_of_place(node)
    for node in made.nodes:
        source = _unchanged(node)
        if source is not None:
            node.replace_all_uses_with(source)
    for node in reversed(list(made.nodes)):
        if not node.users and node.op not in ("output", "placeholder"):
            made.erase_node(node)
    return made


def op_name(node: fx.Node) -> str:
    """The name of an ATen operation without its overload; "" for anything else.

    >>> node = fx.Graph().call_function(aten.relu_.default, ())
    >>> op_name(node)
    'relu_'
    """
    is_aten = isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "aten"
    return node.target._schema.name.removeprefix("aten::") if is_aten else ""  # type: ignore[union-attr]


def is_in_place(node: fx.Node) -> bool:
    """Whether an operation writes into its first argument."""
    name = op_name(node)
    return name.endswith("_") and not name.endswith("__")


def _out_of_place(node: fx.Node) -> None:
    """Compute a new value instead, and let whatever reads the changed tensor later read that."""
    changed = node.args[0]
    packet = getattr(aten, op_name(node).removesuffix("_"), None)
    overload = str(node.target).rpartition(".")[2]
    if not isinstance(changed, fx.Node) or packet is None or overload not in packet.overloads():
        raise TargetError(
            f"'{node.target}' (at '{node.name}') changes a tensor in place in a way that is not known"
        )
    order = {item: place for place, item in enumerate(node.graph.nodes)}
    for other in _relatives(changed) - {node}:
        later = [user for user in other.users if order[user] > order[node]]
        if other is not changed and later:
            raise TargetError(
                f"'{node.target}' (at '{node.name}') changes in place what '{later[0].name}' reads by another name; "
                f"write it without the trailing underscore (inplace=False)"
            )
    if changed.op == "get_attr":
        raise TargetError(
            f"'{node.target}' (at '{node.name}') changes the model's own '{changed.target}' while it computes; OneFlow "
            f"source is written of models that do not"
        )
    for user in list(changed.users):
        if order[user] > order[node]:
            user.replace_input_with(changed, node)
    node.target = getattr(packet, overload)


def _relatives(node: fx.Node) -> set[fx.Node]:
    """Every node that may be of the same storage."""
    found, open_ = {node}, [node]
    while open_:
        item = open_.pop()
        near = [user for user in item.users if _shares(user) and user.args[0] is item]
        if _shares(item) and isinstance(item.args[0], fx.Node):
            near.append(item.args[0])
        fresh = [other for other in near if other not in found]
        found.update(fresh)
        open_ += fresh
    return found


def _shares(node: fx.Node) -> bool:
    return op_name(node) in _VIEWS or getattr(node.target, "__name__", "") == "getitem"


def _unchanged(node: fx.Node) -> fx.Node | None:
    """The argument whose value an operation returns as it is."""
    name = op_name(node)
    if not name or not node.args or not isinstance(node.args[0], fx.Node):
        return None
    source = node.args[0]
    before, after = source.meta.get("val"), node.meta.get("val")
    if not isinstance(before, Tensor) or not isinstance(after, Tensor) or before.dtype != after.dtype:
        return None
    if name in ("__and__", "bitwise_and") and _always_true(source) and len(before.shape) == 0:
        return node.args[1] if isinstance(node.args[1], fx.Node) else None
    if name in _SAME or name in ("to", "type_as"):
        return source
    if name == "dropout" and node.args[1] == 0:
        return source
    if name in ("add", "sub") and node.args[1] == 0 and type(node.args[1]) is int:
        return source
    if name == "slice":
        given = bound(node)
        whole = given["start"] in (0, None) and given["end"] in (FULL, None) and given["step"] == 1
        return source if whole else None
    if name in ("expand", "view", "reshape", "flatten"):
        same = shape_of(source) == shape_of(node) and [str(size) for size in before.shape] == [
            str(size) for size in after.shape
        ]
        return source if same else None
    return None


def _always_true(node: fx.Node) -> bool:
    """Whether a value is a boolean tensor of ones."""
    return op_name(node) in ("new_ones", "ones") and node.meta["val"].dtype == torch.bool
