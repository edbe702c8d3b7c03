"""Post-training quantization: check, capture, convert, report, and give layers back to float where too much is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from lianzhi import measure
from lianzhi.errors import DataError
from lianzhi.graph import Graph, are_tokens, capture, on_cpu
from lianzhi.measure.metric import one_number
from lianzhi.quantize.batches import samples
from lianzhi.quantize.control import control, require_control
from lianzhi.quantize.convert import Converted, Settings, convert
from lianzhi.quantize.floats import float_model
from lianzhi.quantize.inputs import calibration_batches, naming_the_batch
from lianzhi.quantize.model import QuantizedModel
from lianzhi.quantize.options import DEFAULT_OBSERVER, check_model, check_options
from lianzhi.quantize.ptq import choose
from lianzhi.quantize.ranges import options_of
from lianzhi.quantize.report import group_notes, make_report, table_notes
from lianzhi.quantize.scheme import FLOATS, may_saturate, schemes
from lianzhi.quantize.table import Given, shown


def quantize(
    model: nn.Module,
    example_inputs: Any,
    calibration: Iterable[Any] | None,
    *,
    target: str = "onnxruntime",
    weights: str = "int8",
    activations: str = "int8",
    techniques: Sequence[str | dict[str, Any]] = (),
    max_drop: float | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    observer: str = DEFAULT_OBSERVER,
    observer_options: dict[str, Any] | None = None,
    reduce_range: bool | None = None,
    ignore: Sequence[str] = (),
    calibration_table: Given | None = None,
    layers: Mapping[str, str] | None = None,
    group_size: int | None = None,
) -> QuantizedModel:
    """Quantize a trained model for a target, with a few hundred samples of calibration data.

    ```python
    quantized = quantize.quantize(model, torch.zeros(1, 3, 32, 32), batches, target="onnxruntime")
    print(quantized)                       # per layer: signal-to-noise ratio, the worst ten named
    quantized.export("model-int8.onnx")
    ```

    The model is left as it is. `observer` sets the range of each activation. `reduce_range` gives weights 7
    bits instead of 8; by default it does so where this machine's processor would saturate otherwise.
    `techniques` are names, or mappings of a name to its options (`{"gptq": {"damping": 0.02}}`); they are applied
    in an order of their own. `weights` is "int8" or "int4", `activations` "int8" or "float"; with "float" `group_size`
    32, 64 or 128 gives so many inputs of a linear layer a scale, and `weights` may be "float16", "bfloat16" or "float32".
    `ignore` holds patterns of layer names that stay float; `layers` maps patterns to "int4", "int8" or "float".
    `calibration_table` is a file that `save_table` wrote of the same model, or what `table_from_cache` made: its ranges are taken,
    and `calibration` may be None. With `evaluate` the report holds its value
    before and after; with `max_drop` as well, layers return to float, the worst first, until it falls by no more.

    Raises `DataError` for calibration data that are empty, not finite or of the wrong shape, a table of another
    model, or a metric that is no number, `GraphError` for weights that are NaN, infinite or not float32, and
    `RecipeError` for an option that is not offered, naming those that are.
    """
    check_options(
        target=target,
        weights=weights,
        activations=activations,
        techniques=techniques,
        group_size=group_size,
        layers=layers,
        ignore=ignore,
        calibration_table=calibration_table,
        observer=observer,
        observer_options=observer_options,
        reduce_range=reduce_range,
        max_drop=max_drop,
    )
    check_model(model)
    if weights in FLOATS:
        return float_model(model, example_inputs, calibration, target, weights, evaluate)
    require_control(max_drop, evaluate)
    start = time.perf_counter()
    exact = weights == "int8" and activations == "int8" and may_saturate(target)
    saturates = exact and measure.cpu().saturates
    reduced = saturates if reduce_range is None or not exact else reduce_range
    settings = Settings(
        target=target,
        grids=schemes(target, weights, activations, reduce_range=reduced, group_size=group_size),
        techniques=choose(techniques),
        observer=observer,
        observer_options=options_of(observer, observer_options),
        ignore=ignore,
        layers=layers,
        table=calibration_table,
    )
    graph = capture(on_cpu(model), example_inputs, dynamic_length=are_tokens(example_inputs))
    batches = _batches(calibration, graph, settings)
    with naming_the_batch(graph, batches):
        made = convert(model, graph, batches, settings)
        report = _report(made, settings)
    report |= {"reduce_range": reduced, "seconds": time.perf_counter() - start}
    report["notes"] = [
        *_notes(reduce_range, saturates, made, target),
        *group_notes(made.module, made.names, settings.grids),
        *table_notes(made.placement, weights, made.choices),
    ]
    if evaluate is not None:
        report["accuracy"] = {
            "float": one_number(evaluate(model)),
            "quantized": one_number(evaluate(made.module)),
        }
    table = made.ranges.table
    result = QuantizedModel(made.module, report, target, example_inputs, graph.dynamic_batch, table)
    if max_drop is None or evaluate is None:
        return result
    return control(result, made.origin, evaluate, max_drop)


def _report(made: Converted, settings: Settings) -> dict[str, Any]:
    """What was done, and how far each layer is from float."""
    batches, table = made.origin.batches, made.ranges.table
    report = make_report(
        made.floating,
        made.module,
        made.placement,
        made.ranges,
        batches,
        settings.grids,
        divisible=made.origin.divisible,
    )
    by_name = {"name": settings.observer, **settings.observer_options.to_dict()}
    return report | {
        "target": settings.target,
        "observer": table.observer if table else by_name,
        "techniques": made.techniques,
        "calibration": {
            "batches": len(batches),
            "samples": samples(batches) or (table.samples if table else 0),
            "table": None if settings.table is None else shown(settings.table),
        },
        "folded": made.folded,
        "mixed": made.choices,
    }


def _batches(calibration: Iterable[Any] | None, graph: Graph, settings: Settings) -> list[list[Any]]:
    """The calibration data; none beside a table, unless a technique reads them."""
    if calibration is not None:
        return calibration_batches(calibration, graph)
    if settings.table is None:
        raise DataError("calibration is None: give batches of data, or calibration_table=…, saved before")
    reading = [item.name for item in settings.techniques if item.reads_data]
    if reading:
        raise DataError(
            f"technique '{reading[0]}' reads calibration data, and there is only a table: give calibration too"
        )
    return []


def _notes(asked: bool | None, saturates: bool, made: Converted, target: str) -> list[str]:
    """What was done otherwise than one would expect; `asked` is the option `reduce_range`."""
    notes = []
    if asked and not may_saturate(target):
        notes.append(f"weights have 8 bits: products on target '{target}' do not overflow, with or without 7")
    elif asked is not False and saturates:
        notes.append(
            "weights have 7 bits: this processor has no VNNI, and its products of uint8 and int8 would overflow 16 bits"
        )
    elif asked:
        notes.append("weights have 7 bits, as asked")
    elif saturates:
        notes.append(
            "weights have 8 bits, as asked; this processor has no VNNI, and results may saturate on it"
        )
    notes += [f"BatchNorm '{name}' is not folded: {reason}" for name, reason in made.unfolded]
    if not made.placement.weights and not made.placement.tables:
        notes.append("no layer is quantized: the model has none with an integer kernel on this target")
    return notes
