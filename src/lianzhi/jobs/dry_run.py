"""What a recipe would do, and about how long it would take, from a few timed training steps."""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import nn

from lianzhi import graph, measure, train
from lianzhi.jobs.prepare import Job
from lianzhi.pipeline.checks import check
from lianzhi.pipeline.state import Run
from lianzhi.pipeline.store import Store
from lianzhi.recipe import Prune, ShareWeights, kind_of
from lianzhi.train.options import TrainOptions

TRIAL_STEPS = 8
TEACHER = 4 / 3  # a teacher's forward pass beside a student's forward and backward


@dataclass(frozen=True)
class DryRun:
    """The steps, the data found, and estimated seconds a step (of training)."""

    model: dict[str, Any]
    task: dict[str, Any]
    steps: list[dict[str, Any]]
    target: str

    @property
    def seconds(self) -> float:
        return sum(step["seconds"] for step in self.steps)

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "task": self.task,
            "steps": self.steps,
            "target": self.target,
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        lines = [
            f"model   {self.model['name']}: {self.model['parameters']:,} parameters, {self.model['macs']:,} MACs",
            f"task    {self.task['name']}: "
            + ", ".join(f"{count:,} {name}" for name, count in self.task["splits"].items()),
            f"target  {self.target}",
            "steps",
        ]
        for index, step in enumerate(self.steps):
            options = ", ".join(f"{key}={value}" for key, value in step["options"].items())
            about = f"  about {_duration(step['seconds'])}" if step["seconds"] else ""
            own = step["own_data"]
            note = (
                f", if {' and '.join(own)} had as much data as the task; theirs is made later" if own else ""
            )
            lines.append(f"  {index}  {step['kind']}{about}{note}\n       {options}")
        lines.append(
            f"training takes about {_duration(self.seconds)} on this machine; measuring comes on top. Nothing was written."
        )
        return "\n".join(lines)


def dry_run(job: Job) -> DryRun:
    """Describe a job and time training steps of its dense model. Changes and writes nothing.

    Raises what the run itself would raise before it begins.
    """
    distilled = check(Run(job.recipe, job.task, Store(Path())), job.model)
    captured = graph.capture(job.model, job.task.example_inputs)
    model = {
        "name": job.recipe.model.name or job.recipe.model.artifact if job.recipe.model else "",
        "parameters": measure.parameters(job.model),
        "macs": graph.macs(captured),
    }
    timed: dict[str, float] = {}
    steps = []
    for step, stages in zip(job.recipe.steps, distilled, strict=True):
        trainings = [(training.options, _rounds(step)) for training in stages.values()] or _trainings(step)
        taught = bool(stages) or (isinstance(step, ShareWeights) and step.distill)
        seconds = sum(
            times * _batches(job, trained) * _seconds_a_step(job, trained, timed)
            for trained, times in trainings
        )
        own = [name for name, training in stages.items() if training.own_data]
        seconds *= TEACHER if taught else 1.0
        steps.append({"kind": kind_of(step), "options": step.to_dict(), "seconds": seconds, "own_data": own})
    return DryRun(model, job.task.description(), steps, job.recipe.target)


def _batches(job: Job, trained: TrainOptions) -> float:
    """Forward and backward passes of a training on the task's samples."""
    count = job.task.steps("train", trained.batch_size) * trained.epochs
    return min(count, trained.max_steps * trained.accumulate) if trained.max_steps else count


def _rounds(step: Any) -> int:
    """How often a step trains: once, or between the rounds of pruning."""
    return step.iterations - 1 if isinstance(step, Prune) and step.gradual is None else 1


def _trainings(step: Any) -> list[tuple[TrainOptions, int]]:
    """What a step trains without the stages of a method, and how often."""
    if isinstance(step, ShareWeights):
        return [(options, 1) for options in step.trainings]
    trained = step.refine if isinstance(step, Prune) else step
    return [(trained, _rounds(step))] if isinstance(trained, TrainOptions) else []


def _seconds_a_step(job: Job, options: TrainOptions, timed: dict[str, float]) -> float:
    """What a training step takes; `timed` keeps it for what else trains in that way."""
    key = f"{options.batch_size} {options.precision} {options.memory_format} {options.augment}"
    if key not in timed:
        timed[key] = _timed(job, options)
    return timed[key]


def _timed(job: Job, options: TrainOptions) -> float:
    """Time training steps of the dense model as the loop runs them: its precision, memory format and data."""
    starts: list[float] = []
    plain = train.default_step(job.task, options)

    def step(model: nn.Module, batch: Any) -> dict[str, Any]:
        starts.append(time.perf_counter())
        return plain(model, batch)

    trial = options.model_copy(
        update={"epochs": TRIAL_STEPS, "max_steps": TRIAL_STEPS, "accumulate": 1, "keep": "last"}
    )
    train.fit(
        copy.deepcopy(job.model),
        job.task,
        trial,
        step=step,
        progress=False,
        device=job.recipe.device,
        evaluate=lambda model: 0.0,
    )
    return statistics.median(after - before for before, after in pairwise(starts[1:]))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
