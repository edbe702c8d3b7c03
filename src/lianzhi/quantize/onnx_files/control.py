"""Accuracy control of a file: layers go back to float, the worst first, until the metric is close enough to float's.

As `quantize.control` does it for modules: layers are ranked by the error of the results, a sample at a time, that is
taken away on calibration data when one layer alone is float again. A step is undone if it made both the metric and that
error worse: a metric of few samples also falls by chance, and one lucky step would end the search.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch

from lianzhi.deploy.session import Session
from lianzhi.measure.metric import one_number
from lianzhi.quantize.batches import few
from lianzhi.quantize.control import TIE, sample_error
from lianzhi.quantize.onnx_files.calibrate import Feeds
from lianzhi.quantize.report import REPORT_SAMPLES


def control(
    session: Callable[[Collection[str]], Session | None],
    names: list[str],
    exact: Session,
    batches: list[Feeds],
    metric: Callable[[Session], float],
    max_drop: float | None,
) -> dict[str, Any]:
    """Which layers are to be float, ``returned``, and what the metric was at every step.

    `session` loads the file in which layers are float; None where none is left to quantize. Without `max_drop` nothing
    returns. Raises `DataError` for a metric that is not finite.
    """
    whole = session(())
    assert whole is not None
    reference, value = (
        one_number(metric(exact), "the float file"),
        one_number(metric(whole), "the quantized file"),
    )
    record: dict[str, Any] = {"max_drop": max_drop, "calibrated": value, "steps": []}
    returned: list[str] = []
    if max_drop is not None and reference - value > max_drop + TIE:
        error = _error_from(exact, few(batches, REPORT_SAMPLES))
        least = error(whole)
        for name, damage in _ranked(session, names, error, least):
            tried = session([*returned, name])
            found = reference if tried is None else one_number(metric(tried), "the quantized file")
            wrong = error(tried)
            kept = found >= value or wrong < least
            record["steps"].append({"layer": name, "damage": damage, "value": found, "kept": kept})
            if kept:
                value, least, returned = found, wrong, [*returned, name]
            if reference - value <= max_drop + TIE:
                break
    met = max_drop is None or reference - value <= max_drop + TIE
    return record | {"returned": returned, "met": met, "accuracy": {"float": reference, "quantized": value}}


def _error_from(exact: Session, batches: list[Feeds]) -> Callable[[Session | None], float]:
    """The error of a file's results, a sample at a time and relative to float's; None: the float file."""
    wanted = [exact.run(batch) for batch in batches]

    def error(found: Session | None) -> float:
        total = 0.0
        for batch, results in zip(batches, wanted, strict=True) if found is not None else ():
            for one, other in zip(results, found.run(batch), strict=True):  # type: ignore[union-attr]
                if one.dtype.kind == "f" and one.size:
                    total += sample_error([_tensor(one)], [_tensor(other)])
        return total / len(batches)

    return error


def _ranked(
    session: Callable[[Collection[str]], Session | None],
    names: list[str],
    error: Callable[[Session | None], float],
    whole: float,
) -> list[tuple[str, float]]:
    """Layers by damage, the worst first: what the results' error falls by when the layer is float again."""
    damages = {name: whole - error(session([name])) for name in names}
    return sorted(damages.items(), key=lambda item: -item[1])


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
