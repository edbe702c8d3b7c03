"""Whether int8 is worth it: float and int8 timed in turns on the target's own runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lianzhi import deploy, measure
from lianzhi.deploy.session import Session
from lianzhi.quantize.onnx_files.calibrate import Feeds, one_sample
from lianzhi.quantize.onnx_files.compare import output_sqnr

ROUNDS = 9


@dataclass(frozen=True)
class Timing:
    """`ratio`: the time of int8 over that of the fastest float that is as accurate, the median of neighbours."""

    runtime: str
    baseline: str
    ratio: float
    float_ms: float
    int8_ms: float
    threads: int
    shapes: dict[str, list[int]]

    def to_dict(self) -> dict[str, Any]:
        """As a part of the report."""
        return asdict(self)


def can_be_timed(target: str) -> bool:
    """Whether the target is a runtime that is installed here and takes the file."""
    if target not in deploy.onnx_runtimes():
        return False
    runtime: deploy.Runtime = deploy.registry.get(target).build
    return runtime.installed()


def compare_speed(
    source: Path, quantized: Path, batches: list[Feeds], *, target: str, threads: int | None
) -> Timing:
    """Time one sample, or one batch where the file fixes its size.

    Where the runtime offers bfloat16 it is a float baseline too, if its results are as near to float32's as
    those of int8.
    """
    runtime: deploy.Runtime = deploy.registry.get(target).build
    int8 = deploy.load(quantized, runtime=target, threads=threads)
    exact = deploy.load(source, runtime=target, precision="f32", threads=threads)
    floats = [exact]
    bound = output_sqnr(exact, int8, batches)
    for precision in runtime.precisions(source):
        session = exact if precision == "f32" else deploy.load(source, runtime=target, precision=precision)
        if session is not exact and output_sqnr(exact, session, batches) >= bound:
            floats.append(session)
    feeds = one_sample(batches[0], exact)
    turns = [measure.both_in_turns(_call(item, feeds), _call(int8, feeds), ROUNDS) for item in floats]
    hardest = max(range(len(floats)), key=lambda index: turns[index].ratio)
    return Timing(
        runtime=target,
        baseline=floats[hardest].precision,
        ratio=turns[hardest].ratio,
        float_ms=turns[hardest].original_ms,
        int8_ms=turns[hardest].trial_ms,
        threads=int8.threads,
        shapes={name: list(array.shape) for name, array in feeds.items()},
    )


def _call(session: Session, feeds: Feeds) -> Callable[[], Any]:
    return lambda: session.run(feeds)
