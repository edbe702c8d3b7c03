"""Run a recipe: the steps in order, a measured row after each, and the artifact at the end.

A run that was killed goes on with ``resume=True`` and ends with the same weights: each finished step's
structure (its pruning plan) and weights are read back, and the step that was under way continues from its
last training checkpoint.
"""

from __future__ import annotations

import copy
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from lianzhi import deploy, files, measure, models, train
from lianzhi.config import Config
from lianzhi.errors import GraphError, RecipeError
from lianzhi.graph import device_of, fingerprint
from lianzhi.pipeline import finish, memory
from lianzhi.pipeline.checks import check
from lianzhi.pipeline.choose import candidates, choose, without_file
from lianzhi.pipeline.distilling import replay_distill
from lianzhi.pipeline.pruning import replay
from lianzhi.pipeline.quantizing import requantize
from lianzhi.pipeline.result import Result
from lianzhi.pipeline.rows import FLOAT, FloatMeter, accuracy, fastest, make_row, nonzero, of_target, retimed
from lianzhi.pipeline.sources import teachers_of
from lianzhi.pipeline.state import LAYERS, NOTES, ORIGINAL, Run, State, reading
from lianzhi.pipeline.steps import RUNNERS
from lianzhi.pipeline.store import DONE, Store
from lianzhi.pipeline.training import learns_from
from lianzhi.pipeline.vocabulary import replay_vocabulary
from lianzhi.recipe import Distill, Measure, Pack, Prune, Quantize, Recipe, ReduceVocabulary, Train, kind_of
from lianzhi.tasks import Task


def compress(
    model: nn.Module,
    task: Task,
    steps: Sequence[Config],
    *,
    target: str = "auto",
    output: str | os.PathLike[str],
    seed: int = 0,
    resume: bool = False,
    force: bool = False,
    precision: str | None = None,
    measure: Measure | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> Result:
    """Compress a model by a list of steps and write a deployable artifact.

    ```python
    import lianzhi as lz
    result = lz.compress(lz.model("resnet20"), lz.task("cifar10", data="…"),
                         steps=[lz.Prune(ratio=0.5), lz.Distill(epochs=10), lz.Quantize()], output="out/")
    print(result.table())
    ```

    `model` is left as it is. `target` is a runtime, or ``"auto"``: measure what is installed and keep the
    fastest that loses at most ``measure.max_drop`` (0.01) on the validation cut. With `resume` a killed run
    in `output` goes on. Raises a `LianzhiError` before anything is written if the call cannot work.
    """
    recipe = Recipe(
        steps=tuple(steps),
        target=target,
        precision=precision,
        seed=seed,
        device=device,
        measure=measure or Measure(),
    )
    return run(recipe, model, task, output=output, resume=resume, force=force, progress=progress)


def run(
    recipe: Recipe,
    model: nn.Module,
    task: Task,
    *,
    output: str | os.PathLike[str],
    resume: bool = False,
    force: bool = False,
    progress: bool = True,
) -> Result:
    """Run a parsed recipe on a model and a task. See `compress`."""
    _require_kinds(model, task)
    train.check_device(recipe.device)
    rank, world = train.start_processes(recipe.device)
    store = Store(files.expanded(output))
    store.check(resume=resume, force=force)
    this = Run(recipe, task, store, progress=progress, rank=rank, world=world)
    if device_of(model).type not in ("cpu", "meta"):
        model = _copied(model).cpu()
    check(this, model)
    student = _copied(model)
    finished = resume and store.finished()
    train.barrier()  # every process has looked at the folder before the first one changes it
    if finished:
        if this.leads:
            shutil.rmtree(store.output / DONE, ignore_errors=True)  # a kill may have left it
        return finish.reopen(this)
    record = {
        "recipe": recipe.to_dict(),
        "model": fingerprint(model),
        "task": task.fingerprint(),
        "processes": world,
    }
    if taught := teachers_of(recipe):
        record["teachers"] = taught
    try:
        resumed = train.from_leader(store.begin(record, resume=resume) if this.leads else None)
        return _carry_out(this, model, student, resumed=resumed)
    finally:
        store.lock.release()


def _require_kinds(model: Any, task: Any) -> None:
    """A name in place of what it names is the likeliest mistake."""
    if not isinstance(model, nn.Module):
        raise RecipeError(
            f"model is a {type(model).__name__}; give a torch.nn.Module, such as lz.model('resnet20')"
        )
    if not isinstance(task, Task):
        raise RecipeError(
            f"task is a {type(task).__name__}; give lz.task('cifar10', data=…), or lz.Task(train=loader, …)"
        )


def _copied(model: nn.Module) -> nn.Module:
    """A copy to be changed: what the caller gave stays as it is."""
    try:
        return copy.deepcopy(model)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise GraphError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {reason}); keep what forward or a hook "
            f"computes out of the model's attributes"
        ) from error


def _carry_out(run: Run, model: nn.Module, student: nn.Module, *, resumed: bool) -> Result:
    """All steps that are not done, on the student, and the artifact."""
    state = State(model=student, teacher=model)
    for remark in models.remarks(model):
        state.note(remark)
    rows, index = _restore(run, state) if resumed else ([], 0)
    meter = FloatMeter()
    if not rows:
        if run.leads:
            files.make_folder(run.store.work / "original")
        row = _row(run, state, meter, "original", 0.0, {}, run.store.work / "original")
        rows.append({**row, NOTES: list(state.notes)})
        _save(run, "original", rows[-1])
    for position in range(index, len(run.recipe.steps)):
        rows.append(_step(reading(run, state), state, meter, position, resumed=resumed and position == index))
    if run.leads:
        again = meter.again(run, model, run.store.work / "original" / FLOAT)
        rows = retimed(rows, again, run.recipe.measure.choose_batch, run.recipe.target)
        rows = memory.with_memory(run, state, rows, model)
    train.barrier()
    return finish.finish(reading(run, state), state, rows)


def _step(run: Run, state: State, meter: FloatMeter, position: int, *, resumed: bool) -> dict[str, Any]:
    """Carry out one step, measure it, and mark it done."""
    step = run.recipe.steps[position]
    name = f"step-{position}"
    folder = run.store.step(position)
    _keep_teacher(run, state, position)
    start = time.perf_counter()
    details = RUNNERS[type(step)](run, state, step, folder, resume=resumed)
    run = reading(run, state)
    if state.quantize is not None and not isinstance(step, (Quantize, Pack)):
        details = {**details, **requantize(run, state)}
        state.note(f"quantized again after '{kind_of(step)}', which changed the float weights")
    seconds = time.perf_counter() - start
    row = _row(run, state, meter, kind_of(step), seconds, details, folder)
    if state.quantized or position == len(run.recipe.steps) - 1:
        row = train.from_leader(_deployed_row(run, state, row, folder))
    row = {**row, NOTES: list(state.notes)}
    if run.leads:
        run.store.save_state(f"{name}/state", state.model)
    _save(run, name, row)
    return row


def _row(
    run: Run,
    state: State,
    meter: FloatMeter,
    name: str,
    seconds: float,
    details: dict[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """Measure the float model as it is now."""
    reported, validation = accuracy(run, state.model)
    row: dict[str, Any] = {"step": name, "validation": validation}
    if run.leads:
        measured = meter(run, state.model, folder / FLOAT, keep=name == "original")
        for note in meter.notes:
            state.note(note)
        ranked = of_target(measured.latencies, "pytorch" if name == "original" else run.recipe.target)
        deployed = fastest(ranked, run.recipe.measure.choose_batch)
        row = make_row(
            name,
            reported=reported,
            validation=validation,
            parameters=measure.parameters(state.model),
            nonzero=nonzero(state),
            size=measured.size,
            macs=measured.macs,
            seconds=seconds,
            latencies=measured.latencies,
            deployed=deployed,
            details=details,
        )
        row[LAYERS] = measured.layers
    train.barrier()
    return row


def _deployed_row(run: Run, state: State, row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Measure what would ship now: the chosen file, through its own runtime. Only the leader does."""
    if not run.leads:
        return row
    if not deploy.takes_onnx(run.recipe.target):
        moved = without_file(run, row["validation"])
        return row if moved is None else {**row, "decision": moved}
    decision = choose(run, candidates(run, state, folder), row["validation"])
    chosen = decision.chosen
    written = {**decision.record, "source": chosen.path.name}
    threads = run.recipe.measure.threads
    here = deploy.stand_in(chosen.runtime)
    session = deploy.load(chosen.path, runtime=here, precision=chosen.precision, threads=threads)
    reported, _ = accuracy(run, session, alone=True)
    made = make_row(
        row["step"],
        reported=reported,
        validation=chosen.validation,
        parameters=row["parameters"],
        nonzero=nonzero(state, finish.shipped(state, written)),
        size=chosen.size,
        macs=row["macs"],
        seconds=row["seconds"],
        latencies=[entry for item in decision.candidates for entry in item.latencies],
        deployed=fastest(list(chosen.latencies), run.recipe.measure.choose_batch),
        details={**row["details"], "float_value": row["value"]},
    )
    return {**made, LAYERS: row[LAYERS], "decision": written}


def _save(run: Run, name: str, row: dict[str, Any]) -> None:
    if run.leads:
        run.store.save_row(name, row)
    train.barrier()


def _keep_teacher(run: Run, state: State, position: int) -> None:
    """Before the first step that compresses, keep the model as it is: later steps learn from it."""
    steps = run.recipe.steps
    if any(not isinstance(step, Train) for step in steps[:position]) or isinstance(steps[position], Train):
        return
    inner = [step.refine if isinstance(step, Prune) else step for step in steps[position:]]
    learners = [step for step in inner if learns_from(step) == ORIGINAL]
    if position == 0 or not learners:
        return
    state.teacher = copy.deepcopy(state.model)


def _restore(run: Run, state: State) -> tuple[list[dict[str, Any]], int]:
    """Replay the steps that are done. Return their rows and the index of the next step."""
    original = run.store.row("original")
    if original is None:
        return [], 0
    rows = [original]
    state.notes = list(original.get(NOTES, state.notes))
    for position, step in enumerate(run.recipe.steps):
        row = run.store.row(f"step-{position}")
        if row is None:
            return rows, position
        _keep_teacher(run, state, position)
        if isinstance(step, Prune):
            replay(reading(run, state), state, step, run.store.step(position))
        if isinstance(step, Distill):
            replay_distill(reading(run, state), state, step)
        if isinstance(step, ReduceVocabulary):
            replay_vocabulary(reading(run, state), state, step)
        if isinstance(step, Quantize):
            state.quantize = step
        run.store.load_state(f"step-{position}/state", state.model)
        state.notes = list(row.get(NOTES, ()))
        rows.append(row)
    if state.quantize is not None:
        requantize(reading(run, state), state)
    return rows, len(run.recipe.steps)
