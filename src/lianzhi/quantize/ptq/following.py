"""Where a factor a channel can go through: from a norm, or a linear layer, to the linear layers that read it.

``(x / s) (W s)^T = x W^T``: what makes x is divided by s, and the columns of all that read it are multiplied by s.
Where x goes elsewhere too, as into the sum after the attention of a BERT, or the norm has no weight, x stays as it is,
and an op of its own multiplies what the linear layers read by 1 / s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from lianzhi.graph import TracedModule, get_tensor
from lianzhi.quantize.insert import free_key
from lianzhi.quantize.placement import layer_name
from lianzhi.quantize.placement.ops import LINEAR, PRODUCTS
from lianzhi.quantize.placement.plan import is_identity
from lianzhi.quantize.ptq.technique import Skipped

aten = torch.ops.aten
HOMOGENEOUS = {aten.relu.default, aten.relu_.default, aten.max_pool2d.default, aten.max_pool1d.default}
NORMS: dict[Any, tuple[int, ...]] = {aten.layer_norm.default: (2, 3), aten.rms_norm.default: (2,)}


@dataclass(frozen=True)
class Following:
    """`source` gives what the linear layers `readers` read; `divided`: its parameters, whose first axis is the channel.

    Without any the factor gets an op of its own.
    """

    source: fx.Node
    divided: list[str]
    readers: list[fx.Node]

    def scale_(self, module: TracedModule, factor: Tensor) -> None:
        """Divide what is read by the factor, and multiply the columns that read it, in place."""
        if bool((factor == 1).all()):
            return
        with torch.no_grad():
            for value in dict.fromkeys(reader.args[0] for reader in self.readers) if not self.divided else ():
                _multiply(module, value, 1 / factor, self.readers)  # type: ignore[arg-type]
            for name in self.divided:
                tensor = get_tensor(module, name)
                tensor.div_(factor.view(-1, *[1] * (tensor.dim() - 1)))
            for reader in self.readers:
                weight_tensor(module, reader).mul_(factor)


def after_norms(module: TracedModule, weighted: list[fx.Node]) -> tuple[list[Following], Skipped]:
    """The linear layers that read a norm with a weight, together by norm; the others with the reason."""
    groups: dict[fx.Node, list[fx.Node]] = {}
    skipped = []
    for node in weighted:
        reason = "it is not a linear layer"
        if node.target in LINEAR:
            source = _moved_from(node.args[0])
            reason = _norm_obstacle(module, source, node)
            if not reason:
                groups.setdefault(source, []).append(node)
        if reason:
            skipped.append((layer_name(node), reason))
    return [_following(module, source, readers) for source, readers in groups.items()], skipped


def after_linear(module: TracedModule, weighted: list[fx.Node]) -> list[Following]:
    """The linear layers that read what another one gives, with nothing but ReLU or a product between."""
    found = []
    for node in weighted:
        first = _linear_before(node.args[0]) if node.target in LINEAR else None
        if first is not None and first in weighted and own(module, first) and own(module, node):
            names = [str(item.target) for item in (first.args[1], bias_node(first)) if item is not None]  # type: ignore[union-attr]
            found.append(Following(first, names, [node]))
    return found


def weight_tensor(module: TracedModule, node: fx.Node) -> Tensor:
    """The weight of an op that is not yet quantized."""
    return get_tensor(module, str(node.args[1].target)).detach()  # type: ignore[union-attr]


def bias_node(node: fx.Node) -> Any:
    """What an op with weights adds, if it adds something."""
    return node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")


def own(module: TracedModule, node: fx.Node) -> bool:
    """Whether no other op reads the weight or the bias, under any name, and both are parameters."""
    return all(item is None or _own_parameter(module, item) for item in (*node.args[1:2], bias_node(node)))


def _own_parameter(module: TracedModule, item: Any) -> bool:
    if not isinstance(item, fx.Node) or item.op != "get_attr":
        return False
    tensor = get_tensor(module, str(item.target))
    readers = [
        user
        for other in module.graph.nodes
        if other.op == "get_attr" and get_tensor(module, str(other.target)) is tensor
        for user in other.users
    ]
    return len(readers) == 1


def _norm_parameters(source: fx.Node) -> list[str]:
    """The names of a norm's weight and bias; none if it has none. A product with a vector is RMSNorm's last op."""
    places = NORMS.get(source.target) or ((0, 1) if source.target in PRODUCTS else ())
    given = [source.args[place] for place in places if len(source.args) > place]
    names = []
    for item in given:
        value = item.meta.get("val") if isinstance(item, fx.Node) and item.op == "get_attr" else None
        if value is not None and value.dim() == 1 and value.shape[0] == source.meta["val"].shape[-1]:
            names.append(str(item.target))  # type: ignore[union-attr]
    return names


def _norm_obstacle(module: TracedModule, source: Any, node: fx.Node) -> str:
    """Why what reads a norm cannot have a factor, or ""."""
    known = isinstance(source, fx.Node) and (source.target in NORMS or source.target in PRODUCTS)
    if not known or (source.target in PRODUCTS and not _norm_parameters(source)):
        return "no norm stands before it"
    return "" if own(module, node) else "it shares its weight"


def _following(module: TracedModule, source: fx.Node, readers: list[fx.Node]) -> Following:
    """A norm's own parameters are divided if nothing but linear layers with weights of their own reads it: all of these
    then take the factor, those that stay float as well.
    """
    names = _norm_parameters(source)
    items = [item for item in source.args if isinstance(item, fx.Node) and str(item.target) in names]
    everyone = list(dict.fromkeys(_readers(source)))
    folds = all(
        reader.target in LINEAR and _moved_from(reader.args[0]) is source and own(module, reader)
        for reader in everyone
    )
    if names and folds and all(_own_parameter(module, item) for item in items):
        return Following(source, names, everyone)
    return Following(source, [], readers)


def _multiply(module: TracedModule, value: fx.Node, factor: Tensor, readers: list[fx.Node]) -> None:
    """Of those that read a value, these read its product with a factor, a value a channel, which is a buffer."""
    home = free_key(module._modules, f"{value.name}_factor")
    module.add_module(home, nn.Module())
    module.get_submodule(home).register_buffer("factor", factor)
    with module.graph.inserting_before(min(reader for reader in readers if reader.args[0] is value)):
        held = module.graph.get_attr(f"{home}.factor")
        product = module.graph.call_function(aten.mul.Tensor, (value, held))
    held.meta["val"], product.meta["val"] = factor.to("meta"), value.meta["val"]
    for reader in readers:
        if reader.args[0] is value:
            reader.update_arg(0, product)
    module.recompile()


def _readers(node: fx.Node) -> list[fx.Node]:
    """The ops that read a value, seen through those that leave its last axis where it is."""
    found = []
    for user in node.users:
        found += _readers(user) if _keeps_channels(user) else [user]
    return found


def _moved_from(value: Any) -> Any:
    while isinstance(value, fx.Node) and _keeps_channels(value):
        value = value.args[0]
    return value


def _keeps_channels(node: fx.Node) -> bool:
    """Whether an op leaves the values as they are, and the last axis where it is."""
    if node.target is aten.transpose.int:
        last = node.meta["val"].dim() - 1
        return all(int(axis) % (last + 1) != last for axis in node.args[1:3])  # type: ignore[call-overload]
    return is_identity(node)


def _linear_before(value: Any) -> fx.Node | None:
    """The linear layer whose outputs are the channels of a value up to ReLU and factors of their own."""
    while isinstance(value, fx.Node) and len(value.users) == 1:
        if value.target in LINEAR:
            return value
        if value.target in PRODUCTS:
            shapes = {
                str(tuple(item.meta["val"].shape)) for item in value.args[:2] if isinstance(item, fx.Node)
            }
            sides = [_linear_before(item) for item in reversed(value.args[:2])] if len(shapes) == 1 else []
            return next((item for item in sides if item is not None), None)
        if value.target not in HOMOGENEOUS and not is_identity(value):
            return None
        value = value.args[0]
    return None
