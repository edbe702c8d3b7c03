"""A latency budget: trial plans are exported, timed on the target runtime, and the mildest that is fast enough wins.

Latency is not a smooth function of widths: runtimes work in blocks (of 16 in OpenVINO; ONNX Runtime ran 11, 23
and 45 channels slower than 16, 32 and 64). So nothing is estimated, and where the caller leaves `round_to` at 1,
plans whose widths are multiples of 8 and 16 are tried beside the exact ones: the one that is fast enough and
keeps the most channels is taken. Original and trial are timed in turns, so that a machine that gets slower
slows both; a share is the median over rounds, and the plan that is chosen is timed once more before it counts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from torch import Tensor

from lianzhi import deploy
from lianzhi.errors import RecipeError, TargetError
from lianzhi.graph import Group
from lianzhi.measure import in_turns
from lianzhi.prune.planned import Plan
from lianzhi.prune.selection import Limits, Selection

ROUNDS, TRIALS = 9, 6
STEPS = (8, 16)


At: TypeAlias = Callable[[float, int], Selection]


class Timer(Protocol):
    """Gives the share of the original's latency that a selection leaves; a final measurement takes longer."""

    def __call__(self, keeps: Sequence[Tensor], *, final: bool = False) -> float: ...

    def describe(self) -> str: ...


def check(target: str, batch: int) -> None:
    """Refuse a runtime that is not there, before anything is computed."""
    if not deploy.runs_here(target):
        raise TargetError(
            f"target '{target}' does not run on this machine, so no latency can be measured; give another budget"
        )
    deploy.registry.get(target).build.require()
    if type(batch) is not int or batch < 1:
        raise RecipeError(f"batch={batch!r}: a whole number of at least 1")


def select_to_latency(at: At, timer: Timer, budget: float, limits: Limits) -> tuple[Selection, str]:
    """The selection that keeps the most channels of those that were measured to be fast enough, and a note.

    `at(ratio, step)` selects for a ratio with widths that are multiples of `step`.
    """
    found: list[_Fast] = []
    bound, least = 1.0, 1.0
    for step in (limits.round_to,) if limits.round_to > 1 else (1, *STEPS):
        high = bound
        trial = at(high, step)
        share = timer(trial.keeps)
        least = min(least, share)
        if share > budget:
            continue
        found.append(_Fast(trial, step, high))
        low = 0.0
        for _ in range(TRIALS):
            middle = (low + high) / 2
            trial = at(middle, step)
            share = timer(trial.keeps)
            least = min(least, share)
            if share <= budget:
                high = middle
                found.append(_Fast(trial, step, high))
            else:
                low = middle
        bound = high if step == limits.round_to else bound
    too_slow: dict[int, float] = {}
    for candidate in sorted(found, key=lambda item: -item.selection.kept):
        fast = candidate
        share = timer(fast.selection.keeps, final=True)
        if share <= budget:
            if fast.step in too_slow:
                fast, share = _nearer(fast, share, too_slow[fast.step], at, timer, budget)
            widths = f"; widths in multiples of {fast.step}" if fast.step > limits.round_to else ""
            note = f"latency: {share:.1%} of the original's remain ({timer.describe()}{widths})"
            return fast.selection, note
        too_slow[fast.step] = max(fast.ratio, too_slow.get(fast.step, 0.0))
        least = min(least, share)
    raise RecipeError(
        f"latency={budget} cannot be met: {least:.3f} is the least that was measured ({timer.describe()}) within "
        f"max_layer_ratio {limits.max_layer_ratio}, min_channels {limits.min_channels} and round_to "
        f"{limits.round_to}; ask for more, or loosen these limits"
    )


@dataclass(frozen=True)
class _Fast:
    """A selection that was measured to be fast enough: for which ratio, in multiples of which width."""

    selection: Selection
    step: int
    ratio: float


def _nearer(
    fast: _Fast, share: float, low: float, at: At, timer: Timer, budget: float
) -> tuple[_Fast, float]:
    """Between a ratio that the final measurement found too slow and one that is fast: the mildest that is fast."""
    for _ in range(TRIALS):
        middle = (low + fast.ratio) / 2
        trial = at(middle, fast.step)
        found = timer(trial.keeps, final=True)
        if found <= budget:
            fast, share = _Fast(trial, fast.step, middle), found
        else:
            low = middle
    return fast, share


class Stopwatch:
    """Exports and times trial plans against the original. A context manager: its files go when it is left."""

    def __init__(
        self, plan: Plan, groups: Sequence[Group], example_inputs: Any, target: str, batch: int
    ) -> None:
        self.plan, self.groups, self.example = plan, groups, example_inputs
        self.target, self.batch = target, batch
        self.inputs = repeated(example_inputs, batch)
        self.seen: dict[tuple[int, ...], float] = {}
        self.sessions: dict[tuple[int, ...], Any] = {}

    def __enter__(self) -> Stopwatch:
        self.folder = tempfile.TemporaryDirectory(prefix="lianzhi-")
        self.original = self._session(self.plan.graph.source)
        return self

    def __exit__(self, *exception: object) -> None:
        self.folder.cleanup()

    def __call__(self, keeps: Sequence[Tensor], *, final: bool = False) -> float:
        """The share of the original's latency. Latency depends on widths: each is measured once, and finally."""
        key = tuple(int(keep.sum()) for keep in keeps)
        if key not in self.seen or final:
            trial = self._session(self._pruned(keeps))
            self.seen[key] = in_turns(
                lambda: self.original(self.inputs), lambda: trial(self.inputs), ROUNDS * (3 if final else 1)
            )
        return self.seen[key]

    def describe(self) -> str:
        """What it was measured on."""
        return (
            f"measured with {self.target} {self.original.precision}, batch {self.batch}, "
            f"{self.original.threads} threads"
        )

    def _pruned(self, keeps: Sequence[Tensor]) -> Any:
        trial = {group.name: keep for group, keep in zip(self.groups, keeps, strict=True)}
        return Plan(self.plan.graph, self.plan.groups, trial).apply()

    def _session(self, model: Any) -> Any:
        return _session(model, self.example, self.target, Path(self.folder.name))


def latency_share(
    original: Any, pruned: Any, example_inputs: Any, *, target: str = "onnxruntime", batch: int = 1
) -> float:
    """The share of the original's latency that a pruned module has, both timed in turns in a runtime.

    >>> import torch
    >>> wide, slim = (torch.nn.Sequential(torch.nn.Linear(64, n), torch.nn.Linear(n, 64)) for n in (4096, 64))
    >>> latency_share(wide, slim, torch.zeros(1, 64), batch=16) < 0.5
    True
    """
    check(target, batch)
    inputs = repeated(example_inputs, batch)
    with tempfile.TemporaryDirectory(prefix="lianzhi-") as folder:
        first, second = (
            _session(model, example_inputs, target, Path(folder)) for model in (original, pruned)
        )
        return in_turns(lambda: first(inputs), lambda: second(inputs), 3 * ROUNDS)


def _session(model: Any, example_inputs: Any, target: str, folder: Path) -> Any:
    """A module as it runs in a runtime; the file that it is exported to is gone afterwards."""
    if target == "pytorch":
        return deploy.load(model, runtime=target)
    path = folder / "trial.onnx"
    deploy.export_onnx(model, example_inputs, path)
    session = deploy.load(path, runtime=target)
    path.unlink()
    return session


def repeated(inputs: Any, count: int) -> Any:
    """The first sample of the example inputs, `count` times."""
    if isinstance(inputs, dict):
        return {key: repeated(value, count) for key, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return tuple(repeated(value, count) for value in inputs)
    return inputs[:1].repeat(count, *[1] * (inputs.dim() - 1))
