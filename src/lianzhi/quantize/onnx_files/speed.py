"""Whether int8 is worth it: float and int8 timed in turns on the target's own runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lianzhi import deploy, measure
from lianzhi.deploy.session import Session
from lianzhi.quantize.onnx_files.calibrate import Feeds, one_sample
from lianzhi.quantize.onnx_files.compare import output_sqnr

ROUNDS = 7
SIMPLIFIED = "f32, simplified"


@dataclass(frozen=True)
class Timing:
    """`ratio`: the time of int8 over that of the fastest float that is as accurate, the median of neighbours.

    `ratios`: the same over each float that was timed.
    """

    runtime: str
    baseline: str
    ratio: float
    float_ms: float
    int8_ms: float
    threads: int
    shapes: dict[str, list[int]]
    ratios: dict[str, float] = field(default_factory=dict)

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
    source: Path,
    simplified: Path | None,
    quantized: Path,
    batches: list[Feeds],
    *,
    target: str,
    threads: int | None,
    timed: Feeds | None = None,
    rounds: int = ROUNDS,
) -> Timing:
    """Time `timed`; by default one sample, or one batch where the file fixes its size.

    A float baseline is the source; the simplified file without quantizers, so that no gain of simplifying is one of
    int8; and the source in bfloat16 where the runtime offers it, if its results are as near to float32's as int8's.
    """
    int8 = deploy.load(quantized, runtime=target, threads=threads)
    exact = deploy.load(source, runtime=target, precision="f32", threads=threads)
    floats = {"f32": exact}
    if simplified is not None:
        floats[SIMPLIFIED] = deploy.load(simplified, runtime=target, precision="f32", threads=threads)
    runtime: deploy.Runtime = deploy.registry.get(target).build
    bound = output_sqnr(exact, int8, batches)
    for precision in [name for name in runtime.precisions(source) if name != "f32"]:
        session = deploy.load(source, runtime=target, precision=precision, threads=threads)
        if output_sqnr(exact, session, batches) >= bound:
            floats[precision] = session
    feeds = one_sample(batches[0], exact) if timed is None else timed
    call = _call(int8, feeds)
    turns = {name: measure.both_in_turns(_call(item, feeds), call, rounds) for name, item in floats.items()}
    hardest = max(turns, key=lambda name: turns[name].ratio)
    return Timing(
        runtime=target,
        baseline=hardest,
        ratio=turns[hardest].ratio,
        float_ms=turns[hardest].original_ms,
        int8_ms=turns[hardest].trial_ms,
        threads=int8.threads,
        shapes={name: list(array.shape) for name, array in feeds.items()},
        ratios={name: item.ratio for name, item in turns.items()},
    )


def _call(session: Session, feeds: Feeds) -> Callable[[], Any]:
    return lambda: session.run(feeds)
