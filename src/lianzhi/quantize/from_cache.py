"""A calibration table from TensorRT's calibration cache, whose names are those of an ONNX file.

Which value of the module a name of the file is, no rule says: the exporter has names of its own. So the model is quantized once with
a range of its own for every value, and exported: the range that a name has in the file tells the value. The model's weights have no part in it.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from lianzhi.errors import DataError, RecipeError, listed
from lianzhi.quantize.ptq import REWRITE, choose
from lianzhi.quantize.table import CalibrationTable
from lianzhi.quantize.tensorrt_cache import file_amax, read_tensorrt_cache
from lianzhi.quantize.workflow import quantize

OBSERVER = "tensorrt cache"
TARGET = "tensorrt"
_START = b"TRT-"


def is_tensorrt_cache(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as TensorRT's calibration caches do; False for one that cannot be read.

    >>> is_tensorrt_cache("calibration.json")
    False
    """
    try:
        with open(path, "rb") as file:
            return file.read(len(_START)) == _START
    except OSError:
        return False


def table_from_cache(
    path: str | os.PathLike[str],
    model: nn.Module,
    example_inputs: Any,
    *,
    target: str = TARGET,
    techniques: Any = (),
    **options: Any,
) -> CalibrationTable:
    """The ranges in a calibration cache, as a table that `quantize` takes for this model in place of data.

    ```python
    table = quantize.table_from_cache("calibration.cache", model, torch.zeros(1, 3, 224, 224))
    quantize.quantize(model, torch.zeros(1, 3, 224, 224), None, target="tensorrt", calibration_table=table)
    ```

    The names in the cache are those of the file that `export` writes (a run leaves such a cache beside it), or of the float
    file of `weights="float32"`. `options` are those of `quantize` that say what is quantized (`ignore`, `layers`). A cache does not say of which weights it
    is, nor of which data.

    Raises:
        DataError: the cache is damaged, or has no range for a value that is quantized.
        RecipeError: another target than TensorRT, or a technique that changes the values whose ranges are in the cache.
    """
    check_cache(path, target=target, techniques=techniques)
    amax = read_tensorrt_cache(path)
    first = quantize(model, example_inputs, [example_inputs], target=TARGET, observer="minmax", **options)
    assert first.table is not None
    values = list(first.table.ranges)
    told_apart = {name: (-1.0 - place, 1.0 + place) for place, name in enumerate(values)}
    again = quantize(
        model,
        example_inputs,
        None,
        target=TARGET,
        calibration_table=replace(first.table, ranges=told_apart),
        **options,
    )
    with tempfile.TemporaryDirectory() as folder:
        found = file_amax(again.export(Path(folder, "model.onnx")))
    names: dict[str, list[str]] = {value: [] for value in values}
    for name, place in found.items():
        names[values[round(place) - 1]].append(name)
    missing = [called[0] for called in names.values() if not any(name in amax for name in called)]
    if missing:
        raise DataError(
            f"{path}: the calibration cache has no range for {listed(missing)} of the {len(values)} values that are "
            f"quantized; take the cache of this model's own model.onnx, or calibrate with data"
        )
    largest = {value: max(amax[name] for name in called if name in amax) for value, called in names.items()}
    ranges = {value: (-most, most) for value, most in largest.items()}
    return replace(first.table, observer={"name": OBSERVER}, data="", samples=0, ranges=ranges)


def check_cache(path: str | os.PathLike[str], *, target: str, techniques: Any = ()) -> None:
    """Raise `RecipeError` or `DataError` unless the cache is whole and goes with target and techniques."""
    if target != TARGET:
        raise RecipeError(
            f"{path}: a calibration cache of TensorRT has symmetric ranges, for target 'tensorrt', and not '{target}'; "
            f"take the run's calibration.json"
        )
    changing = [item.name for item in choose(techniques) if item.stage == REWRITE]
    if changing:
        raise RecipeError(
            f"technique '{changing[0]}' changes values before they are observed, and their ranges in {path} are older; "
            f"leave it out, or take the run's calibration.json"
        )
    read_tensorrt_cache(path)
