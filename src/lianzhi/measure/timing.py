"""Latency: median and 90th percentile of single calls, with everything that it depends on named."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from lianzhi import deploy
from lianzhi.errors import DataError

WARM_UP_SECONDS = 0.1
LEAST_WARM_UP = 3
MOST_SECONDS = 10.0
LEAST_REPEATS = 5


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call at this batch size; `repeats` calls were timed."""

    median_ms: float
    p90_ms: float
    runtime: str
    precision: str
    batch: int
    threads: int
    repeats: int

    def to_dict(self) -> dict[str, Any]:
        """As a line of the report."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.median_ms:.3f} ms median, {self.p90_ms:.3f} ms p90 "
            f"({self.runtime} {self.precision}, batch {self.batch}, {self.threads} threads)"
        )


def latency(
    model_or_path: nn.Module | str | os.PathLike[str],
    example_inputs: Any,
    *,
    runtime: str = "pytorch",
    precision: str | None = None,
    threads: int | None = None,
    repeats: int = 50,
    device: str | None = None,
    compiled: bool = False,
) -> Latency:
    """Time single calls of a module, an ONNX file or an artifact folder.

    >>> import torch
    >>> result = latency(nn.Linear(8, 4), torch.zeros(2, 8), threads=1, repeats=5)
    >>> result.batch, result.threads, result.precision, result.repeats
    (2, 1, 'f32', 5)

    The batch size is that of `example_inputs`; `threads` defaults to all cores this process may use and is
    set explicitly in every runtime. After a warm-up, `repeats` calls are timed one by one with the garbage
    collector off. `device` is where PyTorch computes, the way there and back in the time; `compiled`: by
    `torch.compile`. A slow model is called for 10 seconds at most, but at least 5 times.
    """
    if repeats < 1:
        raise DataError(f"repeats is {repeats}; it must be at least 1")
    session = deploy.load(
        model_or_path,
        runtime=runtime,
        precision=precision,
        threads=threads,
        device=device,
        compiled=compiled,
    )
    times = time_calls(lambda: session(example_inputs), repeats)
    return Latency(
        median_ms=float(np.median(times)),
        p90_ms=float(np.percentile(times, 90)),
        runtime=session.runtime,
        precision=session.precision,
        batch=batch_size(example_inputs),
        threads=session.threads,
        repeats=len(times),
    )


def time_calls(call: Callable[[], Any], repeats: int) -> list[float]:
    """Milliseconds of each of `repeats` calls, after a warm-up.

    >>> len(time_calls(lambda: None, 7))
    7
    """
    start = time.perf_counter()
    done = 0
    while done < LEAST_WARM_UP or (time.perf_counter() - start < WARM_UP_SECONDS and done < repeats):
        call()
        done += 1
    times: list[float] = []
    enabled = gc.isenabled()
    gc.disable()
    try:
        begin = time.perf_counter()
        while len(times) < repeats:
            before = time.perf_counter_ns()
            call()
            after = time.perf_counter_ns()
            times.append((after - before) / 1e6)
            if time.perf_counter() - begin > MOST_SECONDS and len(times) >= LEAST_REPEATS:
                break
    finally:
        if enabled:
            gc.enable()
    return times


def batch_size(inputs: Any) -> int:
    """The first dimension of the first input.

    >>> import torch
    >>> batch_size({"tokens": torch.zeros(4, 7)})
    4
    """
    if isinstance(inputs, dict):
        inputs = next(iter(inputs.values()))
    elif isinstance(inputs, (tuple, list)):
        inputs = inputs[0]
    return int(inputs.shape[0]) if len(inputs.shape) else 1
