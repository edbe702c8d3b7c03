"""Accuracy control: layers go back to float, the worst first, until the metric is close enough to the float model's.

The quantized model is validated. If it lost more than `max_drop`, layers are ranked by the damage they do: the error
of the output, a sample at a time and relative to the float output, that is left on at most 300 calibration samples
when one layer alone is returned to float. The worst is returned, the model is validated again, and a step that made
it worse is undone. Placement follows its rules with the layer left out, so that no quantizer stays for nobody.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor, fx, nn

from lianzhi.errors import RecipeError
from lianzhi.graph import TracedModule, get_tensor, replace_tensor
from lianzhi.measure.metric import one_number
from lianzhi.quantize.affine import FAKE_TENSOR
from lianzhi.quantize.batches import few
from lianzhi.quantize.calibrate import first
from lianzhi.quantize.fold import remove_unused
from lianzhi.quantize.model import QuantizedModel
from lianzhi.quantize.placement import layer_name, place
from lianzhi.quantize.placement.ops import TABLES
from lianzhi.quantize.placement.plan import Placement, Rules
from lianzhi.quantize.tables import in_float_again, looked_up

SAMPLES = 300
TIE = 1e-9


@dataclass(frozen=True)
class Origin:
    """What a quantized model was made of: the float graph with its folded norms, and how quantizers were placed.

    `divisible`: a batch may be cut.
    """

    floating: TracedModule
    rules: Rules
    ignored: Callable[[str], bool]
    batches: list[Any]
    divisible: bool = False

    def placement(self, returned: Collection[str] = ()) -> Placement:
        """Where quantizers go when these layers are float."""
        return place(self.floating, self.rules, lambda name: name in returned or self.ignored(name))


def require_control(max_drop: float | None, evaluate: Any) -> None:
    """Refuse a drop that nothing measures.

    >>> require_control(0.01, None)
    Traceback (most recent call last):
        ...
    lianzhi.errors.RecipeError: max_drop: 0.01 of what? give evaluate=…, a function of a module, more is better
    """
    if max_drop is None:
        return
    if not isinstance(max_drop, Real) or not max_drop >= 0:
        raise RecipeError(f"max_drop: {max_drop!r} must be 0 or more: how much the metric may fall")
    if evaluate is None:
        raise RecipeError(
            f"max_drop: {max_drop:g} of what? give evaluate=…, a function of a module, more is better"
        )


def control(
    quantized: QuantizedModel, origin: Origin, evaluate: Callable[[nn.Module], float], max_drop: float
) -> QuantizedModel:
    """Return layers to float until at most `max_drop` is lost; `report["control"]` has every step.

    `report["accuracy"]` holds the float model's value and the quantized model's, as `quantize` measured them.
    """
    reference, value = (quantized.report["accuracy"][key] for key in ("float", "quantized"))
    record: dict[str, Any] = {"max_drop": max_drop, "calibrated": value, "steps": []}
    module = quantized.model
    returned: list[str] = []
    ranking = _ranked(quantized.model, origin, evaluate) if reference - value > max_drop + TIE else []
    for name, damage in ranking:
        if reference - value <= max_drop + TIE:
            break
        tried = without(quantized.model, origin, [*returned, name])
        found = one_number(evaluate(tried))
        kept = found >= value
        record["steps"].append({"layer": name, "damage": damage, "value": found, "kept": kept})
        if kept:
            module, value, returned = tried, found, [*returned, name]
    record |= {"returned": returned, "met": reference - value <= max_drop + TIE}
    return replace(
        quantized, model=module, report=_reported(quantized.report, record, reference, value, origin)
    )


def without(module: TracedModule, origin: Origin, returned: Collection[str]) -> TracedModule:
    """A copy in which these layers compute in float: their weights as they were, and no quantizer for them alone."""
    module = copy.deepcopy(module)
    gone, layers = _removed(origin, returned)
    originals = {node.name: node for node in origin.floating.graph.nodes if node.name in layers}
    for node in list(module.graph.nodes):
        if node.name in layers and looked_up(node) is not None:
            in_float_again(node)
        elif node.name in layers:
            for position, name in _tensors(originals[node.name]).items():
                if name is not None:
                    replace_tensor(module, name, get_tensor(origin.floating, name).detach().clone())
                    with module.graph.inserting_before(node):
                        source = module.graph.get_attr(name)
                    source.meta["val"] = get_tensor(module, name).detach().to("meta")
                    put = node.update_kwarg if isinstance(position, str) else node.update_arg
                    put(position, source)  # type: ignore[arg-type]
        elif node.target is FAKE_TENSOR and node.args[0].name in gone:
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    remove_unused(module)
    module.graph.lint()
    module.recompile()
    return module


def _removed(origin: Origin, returned: Collection[str]) -> tuple[set[str], set[str]]:
    """The values whose quantizers go, and the ops that go back to float, by their names in the graph."""
    full, rest = origin.placement(), origin.placement(returned)
    return (
        {node.name for node in full.values} - {node.name for node in rest.values},
        {node.name for node in _held(full)} - {node.name for node in _held(rest)},
    )


def _held(placement: Placement) -> list[fx.Node]:
    """The ops whose weight or table is quantized."""
    return [*placement.tables, *placement.weights]


def _tensors(node: fx.Node) -> dict[int | str, str | None]:
    """The parameters that an op of the float graph reads, by position or keyword: its weight, and its bias."""
    bias: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    return {
        1: str(node.args[1].target),  # type: ignore[union-attr]
        2 if len(node.args) > 2 else "bias": str(bias.target) if isinstance(bias, fx.Node) else None,
    }


class _Without(fx.Interpreter):
    """Runs a quantized graph with some layers in float, without a copy of its weights."""

    def __init__(self, module: TracedModule, origin: Origin, returned: Collection[str]) -> None:
        super().__init__(module)
        self.gone, layers = _removed(origin, returned)
        self.floats = {
            node.name: {
                position: get_tensor(origin.floating, name)
                for position, name in _tensors(node).items()
                if name is not None
            }
            for node in origin.floating.graph.nodes
            if node.name in layers and node.target not in TABLES
        }
        self.rows = layers - self.floats.keys()

    def run_node(self, n: fx.Node) -> Any:
        if n.target is FAKE_TENSOR and n.args[0].name in self.gone:  # type: ignore[union-attr]
            return self.fetch_args_kwargs_from_env(n)[0][0]
        if n.name in self.rows:
            return self.env[looked_up(n)]  # type: ignore[index]
        if n.name not in self.floats:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        given, named = list(args), dict(kwargs)
        for position, tensor in self.floats[n.name].items():
            where: Any = named if isinstance(position, str) else given
            where[position] = tensor
        return n.target(*given, **named)  # type: ignore[operator]


def _ranked(
    module: TracedModule, origin: Origin, evaluate: Callable[[nn.Module], float]
) -> list[tuple[str, float]]:
    """Layers by damage, the worst first: what the output's error falls by when the layer is float again.

    Without calibration data (scales from a table) it is what the metric rises by.
    """
    names = list(dict.fromkeys(layer_name(node) for node in _held(origin.placement())))
    batches = few(origin.batches, SAMPLES, divisible=origin.divisible)
    if not batches:
        whole = one_number(evaluate(module))
        damages = {name: one_number(evaluate(without(module, origin, [name]))) - whole for name in names}
    else:
        with torch.no_grad():
            exact = [first(fx.Interpreter(origin.floating).run(*batch)) for batch in batches]
            whole = sample_error(exact, [first(fx.Interpreter(module).run(*batch)) for batch in batches])
            damages = {}
            for name in names:
                runner = _Without(module, origin, [name])
                damages[name] = whole - sample_error(exact, [first(runner.run(*batch)) for batch in batches])
    return sorted(damages.items(), key=lambda item: -item[1])


def sample_error(exact: list[Tensor], found: list[Tensor]) -> float:
    """The mean over samples of the squared error of the output, relative to the output's own square.

    >>> sample_error([torch.tensor([[1.0, 0.0], [0.0, 2.0]])], [torch.tensor([[1.0, 1.0], [0.0, 1.0]])])
    0.625
    """
    total, count = 0.0, 0
    for wanted, given in zip(exact, found, strict=True):
        rows = wanted.double().reshape(max(1, len(wanted)) if wanted.dim() else 1, -1)
        wrong = (given.double().reshape(rows.shape) - rows).square().sum(1)
        total += float((wrong / rows.square().sum(1).clamp(min=1e-30)).sum())
        count += len(rows)
    return total / max(1, count)


def _reported(
    report: dict[str, Any], record: dict[str, Any], reference: float, value: float, origin: Origin
) -> dict[str, Any]:
    """The report of what is left, and what was done."""
    returned, rest = record["returned"], origin.placement(record["returned"])
    values, layers = {node.name for node in rest.values}, {layer_name(node) for node in _held(rest)}
    drop = f"{reference - value:.4f} below the float model's {reference:.4f}"
    if not record["steps"] and record["met"]:
        note = f"accuracy control: nothing to do, the metric is {drop}"
    elif record["met"]:
        note = f"accuracy control: {len(returned)} layers returned to float, the metric is now {drop}"
    else:
        note = f"accuracy control: max_drop {record['max_drop']:g} is not met with {len(returned)} layers in float: {drop}"
    if returned:
        note += "; ratios in this report are those of before"
    return {
        **report,
        "layers": [row for row in report["layers"] if row["name"] in layers],
        "values": [row for row in report["values"] if row["name"] in values],
        "worst": [name for name in report["worst"] if name in layers],
        "worst_values": [name for name in report["worst_values"] if name in values],
        "left_float": [
            *report["left_float"],
            *({"name": name, "reason": "accuracy control"} for name in returned),
        ],
        "accuracy": {"float": reference, "quantized": value},
        "control": record,
        "notes": [*report["notes"], note],
    }
