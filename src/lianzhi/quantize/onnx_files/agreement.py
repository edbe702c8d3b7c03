"""How far a file decides as the float file does, on calibration data that were held out, where no metric is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lianzhi.deploy.session import Session
from lianzhi.errors import DataError
from lianzhi.quantize.onnx_files.calibrate import Feeds
from lianzhi.quantize.onnx_files.net import Net, attribute
from lianzhi.quantize.onnx_files.ops import MOVES

QUARTER = 4
CLASSES = "agreement with the float file (the likeliest class)"
VALUES = "agreement with the float file (1 less the relative error)"


def hold_out(batches: list[Feeds], session: Session) -> tuple[list[Feeds], list[Feeds]]:
    """Calibration data in two parts, to set ranges and to decide by: every fourth batch is held out.

    A single batch is cut where the file takes any batch size. Raises `DataError` where nothing can be held out.
    """
    if len(batches) == 1:
        batches = _cut(batches[0], session)
    if len(batches) < 2:
        raise DataError(
            "max_drop without evaluate holds out a quarter of the calibration data, and there is one sample; "
            "give more batches, or evaluate=…, a function of a loaded file"
        )
    held = [index for index in range(len(batches)) if index % QUARTER == QUARTER - 1] or [len(batches) - 1]
    return [item for index, item in enumerate(batches) if index not in held], [
        batches[index] for index in held
    ]


def metric_of(proto: Any, exact: Session, held: list[Feeds]) -> tuple[Callable[[Session], float], str]:
    """A metric of a loaded file, 1 for the float file, and its name.

    Results of a softmax, and tables of two or more columns (samples, classes), are decisions: it is the share of equal
    ones. Where a file has none, it is 1 less the error relative to the float results, 0 at the least.
    """
    wanted = [exact.run(batch) for batch in held]
    axes = [
        _class_axis(Net(proto), name, values) for name, values in zip(exact.outputs, wanted[0], strict=True)
    ]
    decides = any(axis is not None for axis in axes)

    def same(session: Session) -> float:
        equal = total = 0
        for batch, results in zip(held, wanted, strict=True):
            for axis, one, other in zip(axes, results, session.run(batch), strict=True):
                if axis is not None:
                    equal += int((one.argmax(axis) == other.argmax(axis)).sum())
                    total += one.argmax(axis).size
        return equal / max(1, total)

    def near(session: Session) -> float:
        signal = noise = 0.0
        for batch, results in zip(held, wanted, strict=True):
            for one, other in zip(results, session.run(batch), strict=True):
                if one.dtype.kind == "f":
                    signal += float(np.square(one.astype(np.float64)).sum())
                    noise += float(np.square(one.astype(np.float64) - other).sum())
        return max(0.0, 1 - (noise / signal) ** 0.5) if signal and np.isfinite(noise) else float(not noise)

    return (same, CLASSES) if decides else (near, VALUES)


def _class_axis(net: Net, name: str, values: np.ndarray) -> int | None:
    """The axis of a result that holds scores of classes, or None."""
    if values.dtype.kind != "f" or values.ndim < 1:
        return None
    maker = net.makers.get(name)
    while (
        maker is not None and maker.op_type in MOVES and maker.op_type in ("Reshape", "Identity", "Flatten")
    ):
        maker = net.makers.get(maker.input[0])
    if maker is not None and maker.op_type in ("Softmax", "LogSoftmax"):
        axis = int(attribute(maker, "axis", -1))
        axis = axis if -values.ndim <= axis < values.ndim else -1
        return axis if values.shape[axis] > 1 else None
    return 1 if values.ndim == 2 and values.shape[1] > 1 else None


def _cut(batch: Feeds, session: Session) -> list[Feeds]:
    """A batch as four, or as many as it has samples, where every input leaves the batch free; else as it is."""
    sizes = {len(array) if array.ndim else 0 for array in batch.values()}
    if len(sizes) != 1 or any(not port.shape or port.shape[0] is not None for port in session.inputs):
        return [batch]
    parts = min(QUARTER, max(1, sizes.pop()))
    cut = {name: np.array_split(array, parts) for name, array in batch.items()}
    return [
        {name: np.ascontiguousarray(arrays[index]) for name, arrays in cut.items()} for index in range(parts)
    ]
