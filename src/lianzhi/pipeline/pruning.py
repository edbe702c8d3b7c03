"""The `prune` step: plan, prove, remove; in one round or several, with a step that refines the model in between.

Each round's plan is a JSON file in the step's folder, written before the model is changed: a run that was killed
replays the plans that are there in their order, takes the refining up where it was, and plans the rest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from lianzhi import files, graph, prune, train
from lianzhi.errors import ArtifactError, GraphError
from lianzhi.pipeline import weights
from lianzhi.pipeline.batches import calibration_batches, evaluator, training_inputs
from lianzhi.pipeline.distilling import run_distill
from lianzhi.pipeline.state import Run, State
from lianzhi.pipeline.training import run_train
from lianzhi.pipeline.working import working
from lianzhi.recipe import Distill, Prune
from lianzhi.tasks import Task

Details = dict[str, Any]
EXACT = 1e-4  # of the output's size: float32 noise through a deep model stays a hundred times below


def run_prune(run: Run, state: State, step: Prune, folder: Path, *, resume: bool) -> Details:
    """Remove channels by a plan a round, prove that the surgery is exact, re-estimate BatchNorm and refine if asked."""
    if step.removes_weights:
        return weights.run_prune(run, state, step, folder, resume=resume)
    before = graph.macs(graph.capture(state.model, run.task.example_inputs))
    progress = _Progress(step.budget(), state.model)
    rounds: list[Details] = []
    layers: dict[str, Details] = {}
    verified, kind = 0.0, ""
    for index, share in enumerate(prune.shares(step.iterations, step.schedule)):
        of = f" (round {index + 1} of {step.iterations})" if step.iterations > 1 else ""
        with working(run, f"prune: score, plan, prove, remove{of}"):
            plan, remarks = _plan_of_round(run, state, step, folder, index, share, progress, resume=resume)
            for remark in remarks:
                state.note(remark)
            verified = max(verified, _proved(plan))
            state.model = plan.apply()
            kind = plan.result_kind
            progress.follow(plan)
            if step.reestimate:
                prune.reestimate(state.model, training_inputs(run, step.reestimate))
        state.add_layers(plan.layers)
        for layer in plan.layers:
            first = layers.setdefault(layer["name"], dict(layer))
            first["after"] = layer["after"]
        counted = ("macs", "parameters") if step.iterations > 1 else ()
        rounds.append({name: plan.count(name) for name in counted})
        if step.refine is not None and index < step.iterations - 1:
            run_refine = run_distill if isinstance(step.refine, Distill) else run_train
            inside = files.make_folder(folder / f"round-{index}")
            rounds[-1] |= run_refine(run, state, step.refine, inside, resume=resume)  # type: ignore[arg-type]
    return {
        "verified": verified,
        "macs_before": before,
        "macs_after": graph.macs(graph.capture(state.model, run.task.example_inputs)),
        "result": kind,
        "layers": list(layers.values()),
        **({"rounds": rounds} if step.iterations > 1 else {}),
    }


def _proved(plan: prune.Plan | prune.DepthPlan) -> float:
    """How far the pruned model is from the original with its channels silenced; a difference ends the step."""
    error = plan.verify()
    if error > EXACT:
        raise GraphError(
            f"prune: the pruned model would differ from the original with its channels silenced by {error:.2g} of "
            f"the output's size; nothing was removed. Leave out the layers concerned with ignore=[…], and please "
            f"report the model"
        )
    return error


def replay(run: Run, state: State, step: Prune, folder: Path) -> None:
    """Give the model the structure that a finished step left it with; its weights are read afterwards."""
    if step.removes_weights:
        state.sparse |= set(weights.compressible(state.model, step.ignore))
        return
    for index in range(step.iterations):
        plan, _ = _parse(_text(_file(folder, step, index)), state.model, run.task)
        state.model = plan.apply()
        state.add_layers(plan.layers)


def make_plan(run: Run, model: nn.Module, step: Prune, **changes: Any) -> prune.Plan | prune.DepthPlan:
    """The plan of a step for a model: its budget, data and decisions, but for `changes`."""
    options: dict[str, Any] = {
        "criterion": step.criterion,
        "criterion_options": {**step.criterion_options},
        "aggregate": step.aggregate,
        "normalize": step.normalize,
        "granularity": step.granularity,
        "scope": step.scope,
        "round_to": step.round_to,
        "min_channels": step.min_channels,
        "max_layer_ratio": step.max_layer_ratio,
        "ignore": step.ignore,
        "target": latency_target(run, step),
        "batch": step.batch,
        **step.budget(),
        **changes,
    }
    return prune.plan(
        model, run.task.example_inputs, **options, **data_for(options["criterion"], step, run.task)
    )


def latency_target(run: Run, step: Prune) -> str:
    """The runtime that a latency budget is measured on: as asked, else the recipe's, else ONNX Runtime."""
    return step.target or ("onnxruntime" if run.recipe.target == "auto" else run.recipe.target)


def data_for(criterion: str, step: Prune, task: Task) -> dict[str, Any]:
    """Calibration batches and the loss, where the criterion declares that it reads them."""
    if step.removes_layers:
        needed = "activations" if criterion == "influence" else None
    else:
        needed = prune.criteria.needed_by(prune.registry.get(criterion).build)
    if needed is None:
        return {}
    batches = list(calibration_batches(task, step.calibration, step.batch_size))
    return {"calibration": batches} | ({} if needed == "activations" else {"loss": task.loss})


@dataclass
class _Progress:
    """How much of the model as it was before the first round is left."""

    budget: dict[str, float]
    dense: nn.Module
    units: dict[str, int] = field(default_factory=dict)
    left: float = 1.0
    first: int = 0

    def follow(self, plan: prune.Plan | prune.DepthPlan) -> None:
        """Take note of a plan that was applied."""
        name = next(iter(self.budget))
        self.units = self.units or plan.units
        if name == "ratio":
            self.left *= plan.share_kept
        elif name != "latency":
            self.first = self.first or plan.count(name, {})
            self.left = plan.count(name) / max(1, self.first)

    def measured(self, model: nn.Module, run: Run, step: Prune) -> float:
        """The share that is left; a latency is measured, in turns with the original's."""
        if step.latency is None or not self.units:
            return self.left
        target = latency_target(run, step)
        return prune.latency_share(
            self.dense, model, run.task.example_inputs, target=target, batch=step.batch
        )


def _plan_of_round(
    run: Run,
    state: State,
    step: Prune,
    folder: Path,
    index: int,
    share: float,
    progress: _Progress,
    *,
    resume: bool,
) -> tuple[prune.Plan | prune.DepthPlan, list[str]]:
    """The plan that is on file, or a new one, which is put there; the same in every process."""
    file = _file(folder, step, index)
    if run.leads and not (resume and file.is_file()):
        plan = _new_plan(run, state.model, step, share, progress)
        prefix = f"round {index + 1} of {step.iterations}: " if step.iterations > 1 else ""
        remarks = [prefix + note for note in plan.notes]
        if isinstance(plan, prune.DepthPlan) and plan.removed:
            remarks.append(f"{prefix}whole layers removed: {', '.join(plan.removed)}")
        remarks += [f"not prunable: {name} ({reason})" for name, reason in plan.unprunable]
        files.write_json(file, {**json.loads(plan.to_json()), "remarks": remarks})
    return _parse(train.from_leader(_text(file) if run.leads else ""), state.model, run.task)


def _new_plan(
    run: Run, model: nn.Module, step: Prune, share: float, progress: _Progress
) -> prune.Plan | prune.DepthPlan:
    """What a round removes: its part of the whole, given what is left."""
    if step.iterations == 1:
        return make_plan(run, model, step, **_sensitivity(run, model, step))
    ((name, amount),) = progress.budget.items()
    budget = prune.round_budget(name, amount, share, progress.measured(model, run, step))
    if budget <= 0 if name == "ratio" else budget >= 1:
        captured = graph.capture(model, run.task.example_inputs)
        done = prune.Plan(captured, graph.channel_groups(captured), {})
        done.notes.append("nothing is left to remove in this round")
        return done
    changes = {name: budget, "dense": progress.units, **_sensitivity(run, model, step)}
    return make_plan(run, model, step, **changes)


def _sensitivity(run: Run, model: nn.Module, step: Prune) -> dict[str, Any]:
    """What ``scope: sensitivity`` needs: the metric against the share removed, group by group."""
    if step.scope != "sensitivity":
        return {}
    found = prune.sensitivity(
        model,
        run.task.example_inputs,
        evaluator(run.task),
        ratios=step.ratios,
        criterion=step.criterion,
        criterion_options={**step.criterion_options},
        aggregate=step.aggregate,
        normalize=step.normalize,
        granularity=step.granularity,
        ignore=step.ignore,
        **data_for(step.criterion, step, run.task),
    )
    return {"sensitivity": found}


def _file(folder: Path, step: Prune, index: int) -> Path:
    return folder / ("plan.json" if step.iterations == 1 else f"plan-{index}.json")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{file}: the pruning plan of a step cannot be read ({error})") from None


def _parse(text: str, model: nn.Module, task: Task) -> tuple[prune.Plan | prune.DepthPlan, list[str]]:
    """A plan on file, and what was to be said of it."""
    plan = prune.Plan.from_json(text, model, task.example_inputs)
    return plan, [str(remark) for remark in json.loads(text).get("remarks", ())]
