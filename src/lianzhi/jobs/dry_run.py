"""What a recipe would do, and about how long it would take, from one timed training step."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any

from torch import nn

from lianzhi import graph, measure
from lianzhi.jobs.prepare import Job
from lianzhi.recipe import Distill, kind_of
from lianzhi.train.options import TrainOptions


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
            lines.append(f"  {index}  {step['kind']}{about}\n       {options}")
        lines.append(
            f"training takes about {_duration(self.seconds)} here; measuring comes on top. Nothing was written."
        )
        return "\n".join(lines)


def dry_run(job: Job) -> DryRun:
    """Describe a job and time one training step of its dense model. Changes and writes nothing."""
    captured = graph.capture(job.model, job.task.example_inputs)
    model = {
        "name": job.recipe.model.name or job.recipe.model.artifact if job.recipe.model else "",
        "parameters": measure.parameters(job.model),
        "macs": graph.macs(captured),
    }
    cache: dict[int, tuple[float, float]] = {}
    steps = []
    for step in job.recipe.steps:
        seconds = 0.0
        if isinstance(step, TrainOptions):
            if step.batch_size not in cache:
                cache[step.batch_size] = _time_step(job.model, job, step.batch_size)
            forward, both = cache[step.batch_size]
            count = job.task.steps("train", step.batch_size) * step.epochs
            count = min(count, step.max_steps) if step.max_steps else count
            seconds = count * (both + (forward if isinstance(step, Distill) else 0.0))
        steps.append({"kind": kind_of(step), "options": step.to_dict(), "seconds": seconds})
    return DryRun(model, job.task.description(), steps, job.recipe.target)


def _time_step(model: nn.Module, job: Job, batch_size: int) -> tuple[float, float]:
    """Seconds of a forward pass and of forward + backward on one batch, after one warm-up."""
    trial = copy.deepcopy(model).train()
    batch = next(iter(job.task.batches("train", batch_size, epoch=0)))
    forward = both = 0.0
    for _ in range(2):
        start = time.perf_counter()
        loss = job.task.loss(_call(trial, batch.inputs), batch.labels)
        forward = time.perf_counter() - start
        loss.backward()
        both = time.perf_counter() - start
    return forward, both


def _call(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
