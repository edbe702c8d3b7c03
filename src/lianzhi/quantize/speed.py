"""Keep float where int8 is slower: the float and the quantized file are timed in turns on the target's own runtime.

If the quantized file is the slower one, layers stay float by their kind, first convolutions, then linear layers, and the
fastest of these files is kept; if none is faster than float, the whole model stays float. Every time is in the report.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from lianzhi import deploy
from lianzhi.deploy.session import feeds
from lianzhi.errors import RecipeError
from lianzhi.quantize.layers import escaped
from lianzhi.quantize.model import QuantizedModel
from lianzhi.quantize.onnx_files.calibrate import checked_batches
from lianzhi.quantize.onnx_files.speed import ROUNDS, compare_speed
from lianzhi.quantize.workflow import quantize

TIE = 1.02  # what is called slower is so by more than times scatter


def quantize_where_faster(
    model: nn.Module,
    example_inputs: Any,
    calibration: Iterable[Any] | None,
    *,
    target: str = "onnxruntime",
    inputs: Any = None,
    threads: int | None = None,
    rounds: int = ROUNDS,
    ignore: Sequence[str] = (),
    **options: Any,
) -> QuantizedModel:
    """Quantize, and return to float what this machine runs no faster in int8.

    ```python
    quantized = quantize.quantize_where_faster(model, task.example_inputs, batches, target="openvino")
    print(quantized.report["speed"])  # what was timed: share of the float time
    ```

    `inputs` is the batch that is timed (default: the example inputs); other options are those of `quantize`. The float file
    is taken in the fastest precision that the runtime has (f32 or bf16) and whose results are as near to f32's as int8's.
    A report without layers is a model left in float. `report["speed"]["layers"]` names what was returned, as patterns of
    `ignore`.
    """
    if target not in deploy.onnx_runtimes():
        raise RecipeError(
            f"target '{target}' cannot be timed here; quantize for one of {', '.join(deploy.onnx_runtimes())}"
        )
    if options.get("activations", "int8") != "int8":
        raise RecipeError(
            "activations: 'float' has no layers that int8 would make slower; call quantize.quantize"
        )
    if rounds < 1:
        raise RecipeError(f"rounds: {rounds} must be 1 or more")
    batches = None if calibration is None else list(calibration)
    inputs = example_inputs if inputs is None else inputs

    def made(names: Sequence[str]) -> QuantizedModel:
        return quantize(model, example_inputs, batches, target=target, ignore=[*ignore, *names], **options)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        floats = deploy.export_onnx(model, example_inputs, folder / "float.onnx")

        def share(candidate: QuantizedModel) -> float:
            file = candidate.export(folder / "int8.onnx")
            return slowest_share(floats, file, batches, inputs, target=target, threads=threads, rounds=rounds)

        whole = made(())
        tried = {"nothing": share(whole)}
        best, kept, layers = whole, "nothing", list[str]()
        if whole.report["layers"] and tried["nothing"] > TIE:
            for kind, names in kinds(whole).items():
                candidate = made(names)
                tried[kind] = share(candidate)
                if tried[kind] < tried[kept]:
                    best, kept, layers = candidate, kind, names
            if tried[kept] > TIE:
                best, kept, layers = made(["*"]), "everything", ["*"]
    return with_speed(best, {"float_kept": kept, "share_of_float_time": tried, "layers": layers})


def with_speed(quantized: QuantizedModel, record: dict[str, Any]) -> QuantizedModel:
    """The quantized model with what was timed, a `report["speed"]`, in its report."""
    kept, tried = record["float_kept"], record["share_of_float_time"]
    notes = [*quantized.report["notes"], *_notes(kept, tried, quantized.target)]
    return replace(quantized, report={**quantized.report, "speed": record, "notes": notes})


def kinds(quantized: QuantizedModel) -> dict[str, list[str]]:
    """The quantized layers by kind, as patterns of `ignore`, where there is more than one kind; no tables of embeddings."""
    found: dict[str, list[str]] = {"convolutions": [], "linear layers": []}
    for row in [row for row in quantized.report["layers"] if row["type"] != "embedding"]:
        found["convolutions" if "conv" in row["type"] else "linear layers"].append(escaped(row["name"]))
    return found if all(found.values()) else {}


def slowest_share(
    floats: Path,
    file: Path,
    batches: list[Any] | None,
    inputs: Any,
    *,
    target: str,
    threads: int | None = None,
    rounds: int = ROUNDS,
) -> float:
    """Time of a file over that of the float file, in the float precision that leaves it the least advantage.

    How near results are is measured on the batches; without any on `inputs`, which are timed.
    """
    session = deploy.load(floats, runtime=target, threads=threads)
    timed = feeds(inputs, session.inputs)
    return compare_speed(
        floats,
        None,
        file,
        [timed] if batches is None else checked_batches(batches, session),
        target=target,
        threads=threads,
        timed=timed,
        rounds=rounds,
    ).ratio


def _notes(kept: str, tried: dict[str, float], target: str) -> list[str]:
    if kept == "nothing":
        return [] if tried["nothing"] <= 1 else [f"int8 is as fast as float on {target} here, and no faster"]
    slow = f"int8 took {tried['nothing']:.2f} times as long as float on {target} here"
    if kept == "everything":
        return [f"{slow}, and no part of the model was faster in int8: it stays float"]
    return [f"{slow}: {kept} stay float, and the rest takes {tried[kept]:.2f} of the float time"]
