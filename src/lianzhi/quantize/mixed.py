"""Mixed precision: which layers take 4-bit weights, which 8, which stay float, for a file of a given size.

Each layer and choice has a price in bytes and does some damage: the error of the output, a sample at a time and relative
to the float output, when this weight alone is rounded. Damages add up (they are small and of no common sign), so the best
choice is a knapsack, solved exactly by SciPy's `milp`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from lianzhi.errors import RecipeError, did_you_mean
from lianzhi.graph import TracedModule, are_tokens, capture, get_tensor, on_cpu, replace_tensor
from lianzhi.quantize.batches import few
from lianzhi.quantize.calibrate import first
from lianzhi.quantize.control import SAMPLES, sample_error
from lianzhi.quantize.fold import fold_batch_norm
from lianzhi.quantize.inputs import calibration_batches
from lianzhi.quantize.layers import CHOICES
from lianzhi.quantize.placement import RULES, layer_name, place
from lianzhi.quantize.placement.ops import WEIGHTED
from lianzhi.quantize.prepare import prepare
from lianzhi.quantize.rows import rounded_weight
from lianzhi.quantize.scheme import Scheme


@dataclass(frozen=True)
class Sensitivity:
    """A layer with one choice for its weight: what it takes and what it costs."""

    layer: str
    choice: str
    bytes: int
    damage: float


def sensitivity(
    model: nn.Module,
    example_inputs: Any,
    calibration: Iterable[Any],
    *,
    target: str = "onnxruntime",
    choices: Sequence[str] = tuple(CHOICES),
    samples: int = SAMPLES,
) -> list[Sensitivity]:
    """The table of every layer with an integer kernel on the target, and every choice, on a few hundred samples.

    ```python
    table = quantize.sensitivity(model, task.example_inputs, batches)
    layers = quantize.allocate(table, budget=0.2)
    quantized = quantize.quantize(model, task.example_inputs, batches, layers=layers)
    ```
    """
    for name in choices:
        if name not in CHOICES:
            raise RecipeError(f"choices: '{name}' is not offered{did_you_mean(name, CHOICES)}")
    graph = capture(on_cpu(model), example_inputs, dynamic_length=are_tokens(example_inputs))
    batches = few(calibration_batches(calibration, graph), samples, divisible=graph.dynamic_batch)
    module = copy.deepcopy(graph.module)
    prepare(module)
    fold_batch_norm(module)
    weights = _weights(module, target)
    with torch.no_grad():
        exact = [first(fx.Interpreter(module).run(*batch)) for batch in batches]
        return [
            Sensitivity(layer, choice, size_of(module, names, choice), damage)
            for layer, names in weights.items()
            for choice, damage in _damages(module, names, choices, batches, exact)
        ]


def allocate(table: Sequence[Sensitivity], budget: float) -> dict[str, str]:
    """The choice of each layer with the least damage in all, for `budget`: the share of the float bytes that remains.

    >>> table = [Sensitivity("a", "int4", 4, 3.0), Sensitivity("a", "int8", 8, 0.1), Sensitivity("a", "float", 32, 0.0),
    ...          Sensitivity("b", "int4", 4, 1.0), Sensitivity("b", "int8", 8, 0.2), Sensitivity("b", "float", 32, 0.0)]
    >>> allocate(table, 0.2)
    {'a': 'int8', 'b': 'int4'}

    Bytes are those of the weights in the table, scales included. Raises `RecipeError` for a budget that no choice meets.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    if not 0 < budget <= 1:
        raise RecipeError(f"budget: {budget} is no share of the float bytes; give one in (0, 1]")
    layers = list(dict.fromkeys(row.layer for row in table))
    if not layers:
        raise RecipeError(
            "the table holds no layer: the model has none with an integer kernel on this target"
        )
    whole = sum(max(row.bytes for row in table if row.layer == layer) for layer in layers)
    least = sum(min(row.bytes for row in table if row.layer == layer) for layer in layers)
    if least > budget * whole:
        raise RecipeError(
            f"budget: {budget:g} of {whole} bytes cannot be met; the smallest choice of every layer takes "
            f"{least / whole:.3g} of them"
        )
    damages = np.array([row.damage for row in table])
    once = np.array([[float(row.layer == layer) for row in table] for layer in layers])
    found = milp(
        damages / (np.abs(damages).max() or 1.0),
        integrality=np.ones(len(table)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(once, 1, 1),
            LinearConstraint(np.array([[row.bytes / whole for row in table]]), -np.inf, budget),
        ],
    )
    if found.x is None:
        raise RecipeError(f"budget: {budget:g} could not be allocated: {found.message}")
    return {row.layer: row.choice for row, taken in zip(table, found.x, strict=True) if taken > 0.5}


def size_of(module: TracedModule, names: Sequence[str], choice: str) -> int:
    """Bytes of weights, and of a float32 scale an output channel where they are integers.

    The float choice takes four bytes a number.
    """
    total = 0
    for name in names:
        weight = get_tensor(module, name)
        total += -(-weight.numel() * CHOICES[choice] // 8) + (0 if choice == "float" else 4 * len(weight))
    return total


def rounded(weight: Tensor, choice: str) -> Tensor:
    """A weight as the choice stores it: symmetric, with one scale an output channel.

    >>> rounded(torch.tensor([[127.0, 0.4]]), "int8")
    tensor([[127.,   0.]])
    """
    if choice == "float":
        return weight
    return rounded_weight(weight.detach(), Scheme(CHOICES[choice], per_channel=True))


def table_text(table: Sequence[Sensitivity]) -> str:
    """The table as it is printed: a line a layer, the damage of each choice."""
    choices = list(dict.fromkeys(row.choice for row in table))
    width = max(len(row.layer) for row in table)
    rows = {(row.layer, row.choice): row.damage for row in table}
    lines = [f"{'layer':<{width}}" + "".join(f"{choice:>12}" for choice in choices)]
    for layer in dict.fromkeys(row.layer for row in table):
        cells = (rows.get((layer, choice), float("nan")) for choice in choices)
        lines.append(f"{layer:<{width}}" + "".join(f"{cell:>12.3g}" for cell in cells))
    return "\n".join(lines)


def _weights(module: TracedModule, target: str) -> dict[str, list[str]]:
    """The weights of every layer that the target computes in integers."""
    if target not in RULES:
        raise RecipeError(f"target '{target}' is not offered{did_you_mean(target, RULES)}")
    found: dict[str, list[str]] = {}
    for node in place(module, RULES[target], lambda name: False).weights:
        if node.target not in WEIGHTED:
            continue
        names = found.setdefault(layer_name(node), [])
        name = str(node.args[1].target)  # type: ignore[union-attr]
        if name not in names:
            names.append(name)
    return found


def _damages(
    module: TracedModule,
    names: Sequence[str],
    choices: Sequence[str],
    batches: list[Any],
    exact: list[Tensor],
) -> Iterator[tuple[str, float]]:
    """The error of the output with these weights rounded, a choice at a time; the module is left as it was."""
    originals = {name: get_tensor(module, name).detach() for name in names}
    for choice in choices:
        if choice == "float":
            yield choice, 0.0
            continue
        for name, weight in originals.items():
            replace_tensor(module, name, rounded(weight, choice))
        runs = [first(fx.Interpreter(module).run(*batch)) for batch in batches]
        yield choice, sample_error(exact, runs)
        for name, weight in originals.items():
            replace_tensor(module, name, weight)
