"""Mixed precision: which layers take 4-bit weights, which 8, which stay float, for a file of a given size.

Each layer and choice has a price in bytes and does some damage: the error of the output, a sample at a time and relative
to the float output, when this weight alone is rounded. Damages add up (they are small and of no common sign), so the best
choice is a knapsack, solved exactly by SciPy's `milp`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from lianzhi import deploy
from lianzhi.errors import RecipeError, did_you_mean
from lianzhi.graph import TracedModule, are_tokens, capture, get_tensor, on_cpu, replace_tensor
from lianzhi.quantize.batches import few
from lianzhi.quantize.calibrate import first
from lianzhi.quantize.control import SAMPLES, sample_error
from lianzhi.quantize.fold import fold_batch_norm
from lianzhi.quantize.inputs import calibration_batches, naming_the_batch
from lianzhi.quantize.insert import free_key
from lianzhi.quantize.layers import CHOICES
from lianzhi.quantize.options import check_model
from lianzhi.quantize.placement import RULES, layer_name, place, rules_of, weight_node
from lianzhi.quantize.placement.ops import WEIGHTED
from lianzhi.quantize.prepare import prepare
from lianzhi.quantize.rows import rounded_weight
from lianzhi.quantize.scheme import Scheme


@dataclass(frozen=True)
class Sensitivity:
    """A layer or embedding table with one choice for its weight: the bytes it takes, of how many in float, and the damage."""

    layer: str
    choice: str
    bytes: int
    damage: float
    float_bytes: int


def sensitivity(
    model: nn.Module,
    example_inputs: Any,
    calibration: Iterable[Any],
    *,
    target: str = "onnxruntime",
    choices: Sequence[str] = tuple(CHOICES),
    samples: int = SAMPLES,
) -> list[Sensitivity]:
    """The table of every layer and embedding table that the target takes in integers, and every choice, on a few hundred samples.

    ```python
    table = quantize.sensitivity(model, task.example_inputs, batches)
    layers = quantize.allocate(table, budget=0.2)
    quantized = quantize.quantize(model, task.example_inputs, batches, layers=layers)
    ```

    Embedding tables take no int4. Raises `RecipeError` for a choice or target that is not offered, `DataError` for calibration
    data that are none, and `GraphError` for weights with NaN or not float32.
    """
    if isinstance(choices, str) or not choices:
        raise RecipeError(f"choices: {choices!r} holds none; give several of {', '.join(CHOICES)}")
    if samples < 1:
        raise RecipeError(f"samples: {samples} must be 1 or more")
    for name in choices:
        if name not in CHOICES:
            raise RecipeError(f"choices: '{name}' is not offered{did_you_mean(name, CHOICES)}")
    check_model(model)
    graph = capture(on_cpu(model), example_inputs, dynamic_length=are_tokens(example_inputs))
    batches = few(calibration_batches(calibration, graph), samples, divisible=graph.dynamic_batch)
    module = copy.deepcopy(graph.module)
    prepare(module)
    fold_batch_norm(module)
    layers = _layers(module, target)
    with torch.no_grad(), naming_the_batch(graph, batches):
        exact = [first(fx.Interpreter(module).run(*batch)) for batch in batches]
        return [
            Sensitivity(name, choice, layer.bytes(choice), damage, layer.bytes("float"))
            for name, layer in layers.items()
            for choice, damage in _damages(module, layer, choices, batches, exact)
        ]


def allocate(table: Sequence[Sensitivity], budget: float) -> dict[str, str]:
    """The choice of each layer with the least damage in all, for `budget`: the share of the float bytes that remains.

    >>> table = [Sensitivity("a", "int4", 4, 3.0, 32), Sensitivity("a", "int8", 8, 0.1, 32),
    ...          Sensitivity("b", "int4", 4, 1.0, 32), Sensitivity("b", "int8", 8, 0.2, 32)]
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
    whole = sum(max(row.float_bytes for row in table if row.layer == layer) for layer in layers)
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


def rounded(weight: Tensor, choice: str) -> Tensor:
    """A weight as the choice stores it: symmetric, with one scale an output channel.

    >>> rounded(torch.tensor([[127.0, 0.4]]), "int8")
    tensor([[127.,   0.]])
    """
    if choice == "float":
        return weight
    return rounded_weight(weight.detach(), Scheme(CHOICES[choice], per_channel=True))


@dataclass
class _Layer:
    """The weights and tables of a layer, by their names in the module; `tied` tables are stored with a weight of 8 bits and more."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    tables: dict[str, Tensor] = field(default_factory=dict)
    tied: dict[str, str] = field(default_factory=dict)  # the weight's name to that of the table, a copy

    def takes(self, choice: str) -> bool:
        return choice != "int4" or bool(self.weights)

    def bytes(self, choice: str) -> int:
        """Bytes as stored, a float32 scale an output channel or row included where they are integers."""
        shared = () if choice == "int4" else self.tied.values()
        held = [(tensor, choice) for tensor in self.weights.values()]
        held += [(tensor, of_table(choice)) for name, tensor in self.tables.items() if name not in shared]
        return sum(_bytes(tensor, kind) for tensor, kind in held)

    def rounded(self, choice: str) -> dict[str, Tensor]:
        weights = {name: rounded(tensor, choice) for name, tensor in self.weights.items()}
        return weights | {name: rounded(tensor, of_table(choice)) for name, tensor in self.tables.items()}


def of_table(choice: str) -> str:
    """What a table is where its layer is this: no runtime looks rows of int4 up."""
    return "int8" if choice == "int4" else choice


def _bytes(tensor: Tensor, choice: str) -> int:
    return -(-tensor.numel() * CHOICES[choice] // 8) + (0 if choice == "float" else 4 * len(tensor))


def _layers(module: TracedModule, target: str) -> dict[str, _Layer]:
    """What the target takes in integers, by layer; a tied table gets a parameter of its own, in place, to be rounded apart."""
    if deploy.quantized_like(target) not in RULES:
        raise RecipeError(f"target '{target}' is not offered{did_you_mean(target, RULES)}")
    placement = place(module, rules_of(target), lambda name: False)
    found: dict[str, _Layer] = {}
    for node in placement.weights:
        if node.target in WEIGHTED:
            name = str(weight_node(node).target)
            found.setdefault(layer_name(node), _Layer()).weights[name] = get_tensor(module, name).detach()
    for node in placement.tables:
        layer, name = found.setdefault(layer_name(node), _Layer()), str(weight_node(node).target)
        if name in layer.weights:
            name = _set_apart(module, node, layer, name)
        layer.tables[name] = get_tensor(module, name).detach()
    return found


def _set_apart(module: TracedModule, node: fx.Node, layer: _Layer, weight: str) -> str:
    """Let a look-up read a copy of the weight, in place, and return the copy's name."""
    if weight not in layer.tied:
        taken = {*module._parameters, *module._buffers, *module._modules}
        layer.tied[weight] = free_key(taken, f"{weight.replace('.', '_')}_table")
        module.register_buffer(layer.tied[weight], get_tensor(module, weight).detach())
    with module.graph.inserting_before(node):
        node.update_arg(0, module.graph.get_attr(layer.tied[weight]))
    return layer.tied[weight]


def _damages(
    module: TracedModule, layer: _Layer, choices: Sequence[str], batches: list[Any], exact: list[Tensor]
) -> Iterator[tuple[str, float]]:
    """The error of the output with this layer rounded, for each choice that it takes; the module is left as it was."""
    for choice in [choice for choice in choices if layer.takes(choice)]:
        if choice == "float":
            yield choice, 0.0
            continue
        for name, tensor in layer.rounded(choice).items():
            replace_tensor(module, name, tensor)
        runs = [first(fx.Interpreter(module).run(*batch)) for batch in batches]
        yield choice, sample_error(exact, runs)
        for name, tensor in layer.rounded("float").items():
            replace_tensor(module, name, tensor)
