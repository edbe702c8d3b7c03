"""Post-training quantization: capture, fold, place, calibrate, insert, report."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from lianzhi import measure
from lianzhi.errors import DataError
from lianzhi.graph import Graph, TracedModule, are_tokens, capture, check_values, on_cpu
from lianzhi.measure.metric import one_number
from lianzhi.quantize.batches import parts, samples
from lianzhi.quantize.control import Origin, control, require_control
from lianzhi.quantize.floats import float_model
from lianzhi.quantize.fold import fold_batch_norm
from lianzhi.quantize.inputs import calibration_batches
from lianzhi.quantize.insert import insert, insert_tables
from lianzhi.quantize.layers import choices_of, coarsen, in_float
from lianzhi.quantize.model import QuantizedModel
from lianzhi.quantize.options import DEFAULT_OBSERVER, check_options, ignored
from lianzhi.quantize.placement import Placement, place, rules_of
from lianzhi.quantize.prepare import prepare
from lianzhi.quantize.ptq import REWRITE, Chosen, choose
from lianzhi.quantize.ranges import Ranges, find, options_of
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
    model, or a metric that is no number, `GraphError` for weights that are NaN or infinite, and
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
    check_values(model)
    if weights in FLOATS:
        return float_model(model, example_inputs, calibration, target, weights, evaluate)
    require_control(max_drop, evaluate)
    start = time.perf_counter()
    exact = weights == "int8" and activations == "int8" and may_saturate(target)
    saturates = exact and measure.cpu().saturates
    if reduce_range is None or not exact:
        reduce_range = saturates
    chosen = choose(techniques)
    grids = schemes(target, weights, activations, reduce_range=reduce_range, group_size=group_size)
    options = options_of(observer, observer_options)
    graph = capture(on_cpu(model), example_inputs, dynamic_length=are_tokens(example_inputs))
    batches = _batches(calibration, graph, calibration_table, chosen)
    module: TracedModule = copy.deepcopy(graph.module)
    prepare(module)
    folded, unfolded = fold_batch_norm(module)
    choices = choices_of(module, layers)
    ignore = [*ignore, *in_float(choices)]
    placement = place(module, rules_of(target), ignored(module, ignore))
    applied = []
    for technique in (item for item in chosen if item.stage == REWRITE):
        skipped = technique.apply(module, placement.weights, batches, technique.options, grids)
        applied.append({**technique.to_dict(), "skipped": [list(item) for item in skipped]})
    placement = place(
        module, rules_of(target), ignored(module, ignore)
    )  # what was rewritten may read other values
    if grids.activations is None:
        placement.values, placement.shares, placement.groups = [], {}, []
    found = Ranges()
    if grids.activations is not None:
        found = find(
            module,
            placement,
            batches,
            grids.activations,
            model=model,
            target=target,
            observer=observer,
            options=options,
            rewriting=[item for item in chosen if item.stage == REWRITE],
            path=calibration_table,
            divisible=graph.dynamic_batch,
        )
    float_module = copy.deepcopy(module)
    insert(module, placement, found.bounds, grids)
    coarsen(module, choices)
    insert_tables(module, placement.tables)
    names = [node.name for node in placement.weights]
    pieces = [part for batch in batches for part in parts(float_module, batch, divisible=graph.dynamic_batch)]
    for technique in (item for item in chosen if item.stage != REWRITE):
        skipped = technique.apply(
            float_module,
            module,
            pieces if technique.options.takes_parts else batches,
            names,
            technique.options,
        )
        applied.append({**technique.to_dict(), "skipped": [list(item) for item in skipped]})
    report = make_report(
        float_module, module, placement, found, batches, grids, divisible=graph.dynamic_batch
    )
    report |= {
        "target": target,
        "observer": found.table.observer if found.table else {"name": observer, **options.to_dict()},
        "reduce_range": reduce_range,
        "techniques": applied,
        "calibration": {
            "batches": len(batches),
            "samples": samples(batches) or (found.table.samples if found.table else 0),
            "table": None if calibration_table is None else shown(calibration_table),
        },
        "folded": folded,
        "mixed": choices,
        "seconds": time.perf_counter() - start,
    }
    report["notes"] = _notes(reduce_range, saturates, unfolded, placement) + group_notes(module, names, grids)
    report["notes"] += table_notes(placement, weights, choices)
    if evaluate is not None:
        report["accuracy"] = {"float": one_number(evaluate(model)), "quantized": one_number(evaluate(module))}
    result = QuantizedModel(module, report, target, example_inputs, graph.dynamic_batch, found.table)
    if max_drop is None or evaluate is None:
        return result
    origin = Origin(
        float_module, rules_of(target), ignored(float_module, ignore), batches, graph.dynamic_batch
    )
    return control(result, origin, evaluate, max_drop)


def _batches(
    calibration: Iterable[Any] | None, graph: Graph, path: Any, chosen: Sequence[Chosen]
) -> list[list[Any]]:
    """The calibration data; none beside a table, unless a technique reads them."""
    if calibration is not None:
        return calibration_batches(calibration, graph)
    if path is None:
        raise DataError("calibration is None: give batches of data, or calibration_table=…, saved before")
    reading = [item.name for item in chosen if item.reads_data]
    if reading:
        raise DataError(
            f"technique '{reading[0]}' reads calibration data, and there is only a table: give calibration too"
        )
    return []


def _notes(
    reduce_range: bool, saturates: bool, unfolded: list[tuple[str, str]], placement: Placement
) -> list[str]:
    notes = []
    if reduce_range and saturates:
        notes.append(
            "weights have 7 bits: this processor has no VNNI, and its products of uint8 and int8 would overflow 16 bits"
        )
    elif reduce_range:
        notes.append("weights have 7 bits, as asked")
    elif saturates:
        notes.append(
            "weights have 8 bits, as asked; this processor has no VNNI, and results may saturate on it"
        )
    notes += [f"BatchNorm '{name}' is not folded: {reason}" for name, reason in unfolded]
    if not placement.weights and not placement.tables:
        notes.append("no layer is quantized: the model has none with an integer kernel on this target")
    return notes
