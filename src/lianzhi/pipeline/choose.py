"""Which file ships, and on which runtime: measured, not assumed.

Every candidate (float and quantized, on each runtime that is installed, in each precision) is timed, and its
accuracy is measured *through that runtime* on the validation cut, never on the reported split. Of those
that are accurate enough the fastest is kept; among files within 5 % of it the smallest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lianzhi import deploy, measure
from lianzhi.errors import DataError, TargetError
from lianzhi.pipeline.rows import FLOAT, Latencies, fastest, time_file
from lianzhi.pipeline.state import Run, State
from lianzhi.precisions import FLOAT_PRECISIONS

TIE = 1.05


@dataclass(frozen=True)
class Candidate:
    """A file on a runtime in a precision, with what was measured of it."""

    runtime: str
    precision: str
    path: Path
    latencies: Latencies
    median_ms: float
    validation: float | None
    size: int
    executed: bool = True  # here, and not only built for another machine

    @property
    def smaller(self) -> bool:
        """Whether the file stores less than float32."""
        return self.precision not in FLOAT_PRECISIONS

    def to_dict(self, verdict: str) -> dict[str, Any]:
        """The candidate as a line of the report."""
        return {
            "runtime": self.runtime,
            "precision": self.precision,
            "file": self.path.name,
            "median_ms": self.median_ms if self.executed else None,
            "validation": self.validation,
            "bytes": self.size,
            "verdict": verdict,
        }


@dataclass(frozen=True)
class Decision:
    """The candidate that ships, and why."""

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    record: dict[str, Any]


def runtimes(run: Run) -> list[str]:
    """The runtimes in question: the recipe's target, or all that are installed."""
    target = run.recipe.target
    if target == "auto":
        return [name for name in deploy.onnx_runtimes() if deploy.registry.get(name).build.installed()]
    if not deploy.takes_onnx(target):
        return []
    runtime = deploy.registry.get(target).build
    if not runtime.installed():
        raise TargetError(
            f"target '{target}' is not installed; run: {runtime.remedy}, or set target: auto to use what is installed"
        )
    return [target]


def candidates(run: Run, state: State, folder: Path) -> list[Candidate]:
    """Export and measure every candidate; the leader does, while other processes wait.

    Of several runtimes one that cannot run a file is left out, and the report says so.
    """
    found: list[Candidate] = []
    failures: list[TargetError | DataError] = []
    float_file = folder / FLOAT
    deploy.export_onnx(state.model, run.task.example_inputs, float_file)
    for name in runtimes(run):
        files = [float_file]
        if name in state.quantized:
            files.append(Path(state.quantized[name].export(folder / f"{name}-quantized.onnx")))
        for path in files:
            try:
                for precision in deploy.registry.get(name).build.precisions(path):
                    if run.recipe.precision in (None, precision):
                        found.append(_measured(run, path, name, precision))
            except (TargetError, DataError) as error:
                failures.append(error)
    if not found and failures:
        raise failures[0]
    for failure in failures:
        state.note(f"a candidate is left out: {failure}")
    return found


def _measured(run: Run, path: Path, runtime: str, precision: str) -> Candidate:
    here = deploy.stand_in(runtime)
    latencies = time_file(run, path, here, precision)
    validation = None
    if run.task.has("validation"):
        session = deploy.load(path, runtime=here, precision=precision, threads=run.recipe.measure.threads)
        validation = measure.evaluate(
            session, run.task, split="validation", progress=run.progress, alone=True
        ).value
    return Candidate(
        runtime=runtime,
        precision=precision,
        path=path,
        latencies=latencies,
        median_ms=fastest(latencies, run.recipe.measure.choose_batch)["median_ms"],
        validation=validation,
        size=measure.size(path),
        executed=deploy.runs_here(runtime),
    )


def choose(run: Run, found: list[Candidate], reference: float | None) -> Decision:
    """Keep the fastest candidate that is accurate enough on the validation cut."""
    if not found:
        raise TargetError(
            f"target '{run.recipe.target}' has no candidate in precision '{run.recipe.precision}'; "
            f"drop 'precision' to let it be chosen"
        )
    floor = None if reference is None else reference - run.recipe.measure.max_drop
    good = [item for item in found if floor is None or item.validation is None or item.validation >= floor]
    kept = good or [max(found, key=lambda item: (item.validation or 0.0, -item.median_ms))]
    best = min(item.median_ms for item in kept)
    near = [item for item in kept if item.median_ms <= best * TIE or not item.executed]
    chosen = min(near, key=lambda item: (item.size, item.median_ms))
    lines = [item.to_dict(_verdict(item, chosen, good, floor)) for item in found]
    reason = _reason(run, chosen, found, good, floor)
    record = {
        "runtime": chosen.runtime,
        "precision": chosen.precision,
        "file": "model.onnx",
        "batch": run.recipe.measure.choose_batch,
        "max_drop": run.recipe.measure.max_drop,
        "reference": reference,
        "reason": reason,
        "candidates": lines,
    }
    return Decision(chosen, tuple(found), record)


def without_file(run: Run, reference: float | None) -> dict[str, Any] | None:
    """What there is to say of a target that is made of the module itself and runs elsewhere; None for PyTorch."""
    target = run.recipe.target
    if deploy.takes_onnx(target) or deploy.runs_here(target):
        return None
    here = deploy.stand_in(target)
    return {
        "runtime": target,
        "precision": "f32",
        "file": None,
        "source": FLOAT,
        "batch": run.recipe.measure.choose_batch,
        "max_drop": run.recipe.measure.max_drop,
        "reference": reference,
        "reason": (
            f"{target} does not run on this machine, so nothing is said of its speed; accuracy and times of this row are "
            f"those of the same weights in {here}"
        ),
        "candidates": [],
    }


def _verdict(item: Candidate, chosen: Candidate, good: list[Candidate], floor: float | None) -> str:
    if item is chosen:
        return "kept"
    if item not in good:
        return f"too inaccurate: {item.validation:.4f} on validation, at least {floor:.4f} wanted"
    if not item.executed:
        return "larger"
    return "slower" if item.median_ms > chosen.median_ms else "as fast, larger"


def _reason(
    run: Run, chosen: Candidate, found: list[Candidate], good: list[Candidate], floor: float | None
) -> str:
    batch = run.recipe.measure.choose_batch
    if not chosen.executed:
        return _unmeasured(chosen, found, good, floor)
    text = f"{chosen.runtime} in {chosen.precision} took {chosen.median_ms:.3g} ms at batch {batch}"
    if not good:
        return f"{text}; no candidate reached {floor:.4f} on validation, so the most accurate one is kept"
    text += (
        f", the fastest of {len(good)} accurate enough" if len(good) > 1 else ", the only one accurate enough"
    )
    other = next((item for item in found if item.smaller and item.runtime == chosen.runtime), None)
    if other is not None and not chosen.smaller:
        why = f"{other.median_ms:.3g} ms" if other in good else "it loses too much accuracy"
        text += f"; {other.precision} on {chosen.runtime} is not kept: {why}"
    return text


def _unmeasured(chosen: Candidate, found: list[Candidate], good: list[Candidate], floor: float | None) -> str:
    """Why a file ships that this machine cannot run: by accuracy and size, without a word on its speed."""
    here = deploy.stand_in(chosen.runtime)
    text = (
        f"{chosen.runtime} does not run on this machine, so nothing is said of its speed; accuracy is that of the same "
        f"file in {here}, and so are the times of this row"
    )
    if not good:
        return f"{text}; no candidate reached {floor:.4f} on validation, so the most accurate one is kept"
    other = next((item for item in found if item.smaller), None)
    if other is not None and not chosen.smaller:
        return f"{text}; {other.precision} loses too much accuracy, so float is kept"
    return f"{text}; the smallest file that is accurate enough is kept: {chosen.precision}"
