"""Options of `quantize` that do not go together, or fit nothing in the model: refused before anything is computed."""

from __future__ import annotations

import copy
import fnmatch
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lianzhi import deploy
from lianzhi.errors import GraphError, RecipeError, did_you_mean
from lianzhi.graph import TracedModule, capture, check_values, fingerprint
from lianzhi.quantize.fold import fold_batch_norm
from lianzhi.quantize.layers import CHOICES, choices_of
from lianzhi.quantize.placement import layer_name
from lianzhi.quantize.placement.ops import TABLES, TRANSPOSED, WEIGHTED
from lianzhi.quantize.prepare import prepare
from lianzhi.quantize.ptq import REWRITE, choose
from lianzhi.quantize.ranges import options_of
from lianzhi.quantize.scheme import FLOATS, schemes
from lianzhi.quantize.table import CalibrationTable, Given

DEFAULT_OBSERVER = "mse"
HELD = WEIGHTED | TRANSPOSED | TABLES
_STORED = {"float16": "f16-weights", "bfloat16": "bf16-weights", "float32": "f32"}


def check_options(
    *,
    target: str,
    weights: str = "int8",
    activations: str = "int8",
    techniques: Sequence[str | dict[str, Any]] = (),
    group_size: int | None = None,
    layers: Mapping[str, str] | None = None,
    ignore: Sequence[str] = (),
    calibration_table: Given | None = None,
    observer: str = DEFAULT_OBSERVER,
    observer_options: dict[str, Any] | None = None,
    reduce_range: bool | None = None,
    max_drop: float | None = None,
) -> None:
    """Raise `RecipeError` for options of `quantize` that are not offered or not together, saying what to do instead.

    >>> check_options(target="onnxruntime", weights="int4", activations="float", group_size=32)
    >>> check_options(target="onnxruntime", activations="float", calibration_table="table.json")
    Traceback (most recent call last):
        ...
    lianzhi.errors.RecipeError: calibration_table: activations are float, and have no ranges; leave it out
    """
    schemes(target, weights, activations, reduce_range=False, group_size=group_size)
    choose(techniques)
    options_of(observer, observer_options)
    _check_kinds(ignore, layers)
    if weights in FLOATS:
        _refuse(
            {"techniques": techniques, "ignore": ignore, "layers": layers}
            | {"max_drop": max_drop is not None},
            f"nothing is rounded to integers with weights '{weights}'",
        )
    if activations == "float":
        _refuse(
            {"calibration_table": calibration_table, "observer_options": observer_options}
            | {"observer": observer != DEFAULT_OBSERVER},
            "activations are float, and have no ranges",
        )
    if reduce_range and (weights, activations) != ("int8", "int8"):
        raise RecipeError("reduce_range: it is for weights 'int8' with activations 'int8'; leave it out")
    _check_choices(layers or {}, weights)
    if (
        deploy.quantized_like(target) == "tensorrt"
        and activations == "int8"
        and "int4" in (weights, *(layers or {}).values())
    ):
        raise RecipeError(
            "weights: 'int4' with activations 'int8' is not offered for target 'tensorrt', whose builder refuses it; "
            "take activations 'float'"
        )


def _check_kinds(ignore: Any, layers: Any) -> None:
    if isinstance(ignore, str) or not all(isinstance(pattern, str) for pattern in ignore):
        raise RecipeError(f"ignore: {ignore!r:.60} is not a list of patterns")
    texts = [*layers, *layers.values()] if isinstance(layers, Mapping) else [layers]
    if layers is not None and not all(isinstance(text, str) for text in texts):
        raise RecipeError(f"layers: {layers!r:.60} is not a mapping of patterns to choices")


def _refuse(given: dict[str, Any], why: str) -> None:
    for name, value in given.items():
        if value:
            raise RecipeError(f"{name}: {why}; leave it out")


def _check_choices(layers: Mapping[str, str], weights: str) -> None:
    if layers and weights != "int8":
        raise RecipeError(f"layers: what they do not name is int8; leave weights='{weights}' out")
    for pattern, choice in layers.items():
        if choice not in CHOICES:
            raise RecipeError(f"layers: '{pattern}' is '{choice}', and a choice is {', '.join(CHOICES)}")


def check_model(model: nn.Module) -> None:
    """Raise `GraphError` for weights that are not float32, from which integers are made, or no numbers.

    >>> check_model(nn.Linear(2, 2).half())
    Traceback (most recent call last):
        ...
    lianzhi.errors.GraphError: the model's 'weight' is torch.float16, and quantization starts from float32; \
give model.float(), with data of that type
    """
    for name, tensor in model.named_parameters():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise GraphError(
                f"the model's '{name}' is {tensor.dtype}, and quantization starts from float32; "
                f"give model.float(), with data of that type"
            )
    check_values(model)


def check_patterns(
    model: nn.Module,
    example_inputs: Any,
    *,
    ignore: Sequence[str] = (),
    layers: Mapping[str, str] | None = None,
) -> None:
    """Raise `RecipeError` for a pattern that fits no layer of the model."""
    if not ignore and not layers:
        return
    module = copy.deepcopy(capture(model, example_inputs).module)
    prepare(module)
    fold_batch_norm(module)
    choices_of(module, layers)
    ignored(module, ignore)


def check_table(
    path: str | os.PathLike[str],
    model: nn.Module,
    *,
    target: str,
    techniques: Sequence[str | dict[str, Any]] = (),
) -> None:
    """Raise `DataError` unless there is a calibration table of this model and target at `path`."""
    rewriting = [item.to_dict() for item in choose(techniques) if item.stage == REWRITE]
    CalibrationTable.read(path).check(
        path, target=target, techniques=rewriting, model=fingerprint(model), data=None, names=[]
    )


def reads_data(techniques: Sequence[str | dict[str, Any]]) -> bool:
    """Whether one of the techniques reads calibration data, beside a table too.

    >>> reads_data(["equalization"]), reads_data(["gptq"])
    (False, True)
    """
    return any(item.reads_data for item in choose(techniques))


def possible_precisions(
    weights: str = "int8", activations: str = "int8", layers: Mapping[str, str] | None = None
) -> list[str]:
    """The precisions that a file with these options may hold, by the names of `lianzhi.precisions`.

    >>> possible_precisions("int4", "float"), possible_precisions(layers={"head": "int4"})
    (['int4-weights'], ['int8', 'mixed', 'int4'])
    """
    if weights in FLOATS:
        return [_STORED[weights]]
    names = [weights, *(["mixed", "int4"] if "int4" in (layers or {}).values() else [])]
    return names if activations == "int8" else [f"{name}-weights" for name in names]


def ignored(module: TracedModule, patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a layer's name matches a pattern; a pattern that matches nothing is refused."""
    names = [layer_name(node) if node.target in HELD else node.name for node in module.graph.nodes]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            layers = [layer_name(node) for node in module.graph.nodes if node.target in HELD]
            raise RecipeError(f"ignore: '{pattern}' matches no layer{did_you_mean(pattern, layers)}")
    return lambda name: any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
