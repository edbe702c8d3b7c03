"""The step `distill`: a method's stages, one after another, and the model that is left."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi import artifact, distill, files, train
from lianzhi.config import Config
from lianzhi.distill import teacher_cache
from lianzhi.distill.methods import Lessons, Logits, Setting, Stage
from lianzhi.distill.methods.by_logits import LogitStep, require_classes_last
from lianzhi.distill.methods.teacher import teacher_logits
from lianzhi.distill.teacher_cache import Kept, kept
from lianzhi.errors import GraphError, RecipeError
from lianzhi.graph import fingerprint
from lianzhi.pipeline.capturing import captured
from lianzhi.pipeline.state import ORIGINAL, Run, State, reading
from lianzhi.pipeline.students import make_student
from lianzhi.pipeline.teachers import check_teacher, reads_otherwise, teacher_of
from lianzhi.pipeline.texts import check_texts
from lianzhi.pipeline.training import AfterStep, holding, masks_of
from lianzhi.recipe import Distill
from lianzhi.tasks import Task
from lianzhi.tasks.text_preprocess import TextPreprocess
from lianzhi.train.loop import place, updates
from lianzhi.train.options import LEARNING_RATES, TrainOptions

Details = dict[str, Any]
SHARED = ("temperature", "alpha")  # options of a method that a recipe may write beside the others


def run_distill(
    run: Run,
    state: State,
    step: Distill,
    folder: Path,
    *,
    resume: bool,
    after_step: AfterStep | None = None,
    made: tuple[Lessons, Setting] | None = None,
) -> Details:
    """Train with a teacher, by lessons that were `made` before, if any.

    `after_step` runs after each update, before the zeros of weights are restored.
    """
    lessons, setting = made or make_lessons(run, state, step, progress=True)
    # made once: what a stage leaves at zero may be there for `after_step` to bring back
    masks = masks_of(state, state.model) if setting.student is state.model else None
    holds = holding(masks, after_step)
    histories = {}
    for stage in lessons.stages:
        place_of = folder / ("train" if len(lessons.stages) == 1 else f"train-{stage.name}")
        histories[stage.name] = _carry_out(run, step, setting, stage, place_of, resume=resume, holds=holds)
    if masks is not None:
        masks.release()
    for note in lessons.notes:
        state.note(note)
    _take(state, setting, lessons)
    last = histories[lessons.stages[-1].name]
    return {"history": last} if len(histories) == 1 else {"history": last, "stages": histories}


def replay_distill(run: Run, state: State, step: Distill) -> None:
    """Give the state the student's structure, as a finished step left it."""
    lessons, setting = make_lessons(run, state, step, progress=False)
    _take(state, setting, lessons)


def make_lessons(run: Run, state: State, step: Distill, *, progress: bool) -> tuple[Lessons, Setting]:
    """What the method makes of teacher and student. Nothing is trained, and nothing computed that takes long."""
    entry = distill.methods.registry.get(step.method)
    teacher = teacher_of(state, step.teacher)
    student = state.model if step.student is None else make_student(run, state.model, step.student)
    reads = reads_otherwise(run.task, state, step.teacher)

    def keep(task: Task) -> Kept:
        augment = any(stage_options(step, stage).augment for stage in lessons.stages)
        return _kept(run, step, teacher, progress, task, augment=augment)

    kept_anyway = step.cache or reads is not None
    setting = Setting(
        teacher=teacher,
        student=student,
        task=run.task,
        training=step,
        seed=run.recipe.seed,
        source=Logits(teacher, partial(keep, reads or run.task) if kept_anyway else None),
        device=run.recipe.device,
        progress=progress and run.progress and run.leads,
        reads=reads,
        keep=keep,
        named=step.student is not None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.recipe.seed)
        lessons: Lessons = entry.build(setting, options_of(step))
    return lessons, setting


def options_of(step: Distill) -> Config:
    """The method's own options, `temperature` and `alpha` of the step among them."""
    entry = distill.methods.registry.get(step.method)
    values = dict(step.options)
    for key in SHARED:
        value = getattr(step, key)
        if value is None:
            continue
        if entry.config is None or key not in entry.config.model_fields:
            raise RecipeError(f"method '{step.method}' has no '{key}'; leave it out")
        if key in values:
            raise RecipeError(f"'{key}' stands in the step and in its options; give it once")
        values[key] = value
    return entry.options(**values)


def filled(step: Distill) -> dict[str, Any]:
    """The step with every default of its method, for the recipe that is saved."""
    return {**step.to_dict(), **dict.fromkeys(SHARED), "options": options_of(step).to_dict()}


def _folder(step: Distill) -> Path:
    """Where the recipe has the logits kept."""
    return files.expanded(step.cache) if isinstance(step.cache, str) else teacher_cache.folder()


def _kept(run: Run, step: Distill, teacher: nn.Module, progress: bool, task: Task, *, augment: bool) -> Kept:
    """The teacher's logits of the training samples of a task, as the recipe keeps them."""
    return kept(
        teacher,
        task,
        _folder(step),
        named=not isinstance(step.cache, str),
        augment=augment,
        batch_size=step.batch_size,
        top_k=step.top_k,
        device=place(run.recipe.device),
        progress=progress and run.progress,
    )


def _carry_out(
    run: Run,
    step: Distill,
    setting: Setting,
    stage: Stage,
    folder: Path,
    *,
    resume: bool,
    holds: AfterStep | None,
) -> Details:
    task = _task_of(setting, stage)
    assert setting.source is not None
    setting.source.prepare()
    if stage.prepare is not None:
        stage.prepare()

    def after(model: nn.Module) -> None:
        if stage.after_step is not None:
            stage.after_step(model)
        if holds is not None:
            holds(setting.student)

    history = train.fit(
        stage.model or setting.student,
        task,
        stage_options(step, stage),
        step=stage.step,
        seed=run.recipe.seed,
        directory=folder,
        resume=resume,
        progress=run.progress and run.leads,
        title=f"distill ({step.method})" if stage.name == step.method else f"{step.method}: {stage.name}",
        device=run.recipe.device,
        after_step=after if stage.after_step is not None or holds is not None else None,
    )
    return history.to_dict()


def stage_options(step: Distill, stage: Stage) -> TrainOptions:
    """The recipe's options of training, changed by the stage's, changed by what the recipe says of the stage."""
    values = {key: getattr(step, key) for key in TrainOptions.model_fields}
    for changes in (stage.options, {} if stage.choose else {"keep": "last"}, step.stages.get(stage.name, {})):
        values = values | own_rate(values, changes) | changes
    return TrainOptions(**values)


def _task_of(setting: Setting, stage: Stage) -> Task:
    task = stage.task() if callable(stage.task) and not isinstance(stage.task, Task) else stage.task
    return task or setting.task


def all_updates(step: Distill, lessons: Lessons, setting: Setting) -> int:
    """How many updates all stages have together. Their tasks are made now."""
    return sum(updates(_task_of(setting, stage), stage_options(step, stage))[1] for stage in lessons.stages)


def own_rate(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Where another optimizer comes in place of one with its default rate, no rate: its own default.

    >>> own_rate({"optimizer": "sgd", "lr": 0.05}, {"optimizer": "adamw"})
    {'lr': None}
    >>> own_rate({"optimizer": "sgd", "lr": 0.1}, {"optimizer": "adamw"})
    {}
    """
    default = values["lr"] == LEARNING_RATES.get(values["optimizer"])
    other = changes.get("optimizer", values["optimizer"]) != values["optimizer"]
    return {"lr": None} if default and other else {}


def _take(state: State, setting: Setting, lessons: Lessons) -> None:
    """The student takes the model's place."""
    left = setting.student if lessons.finish is None else lessons.finish()
    if left is not state.model:
        state.sparse = set()
        state.layers = {}
    state.model = left
    if lessons.task is not None:
        before = setting.task.preprocess
        state.reads = state.reads or (before if isinstance(before, TextPreprocess) else None)
        state.task = lessons.task


@dataclass(frozen=True)
class Training:
    """How a stage trains; `own_data`: on samples that are made when it begins, so that nobody knows how many."""

    options: TrainOptions
    own_data: bool


def check_distill(run: Run, state: State, step: Distill) -> dict[str, Training]:
    """Refuse what cannot work, and return how each stage trains.

    The state is as after the step, with a model of its own. Nothing is trained or written.
    """
    state.model = given = copy.deepcopy(state.model)
    lessons, setting = make_lessons(run, state, step, progress=False)
    names = [stage.name for stage in lessons.stages]
    unknown = [name for name in step.stages if name not in names]
    if unknown:
        raise RecipeError(
            f"stages: method '{step.method}' has no stage '{unknown[0]}'; it has {', '.join(names)}"
        )
    trainings = {
        stage.name: Training(
            stage_options(step, stage), stage.task is not None and not isinstance(stage.task, Task)
        )
        for stage in lessons.stages
    }
    for training in trainings.values():
        _check_cached(run, step, training.options)
    if setting.source is not None and setting.source.keep is not None:
        mark: dict[str, object] = {"top_k": step.top_k}
        if step.teacher != ORIGINAL:  # the original one may be trained before it teaches
            mark["teacher"] = fingerprint(setting.teacher)
        if not any(
            training.own_data for training in trainings.values()
        ):  # texts that a stage makes are others
            mark["task"] = (setting.reads or setting.task).fingerprint()
        teacher_cache.require_usable(_folder(step), named=not isinstance(step.cache, str), mark=mark)
    _take(state, setting, lessons)
    after = reading(run, state)
    kept_too = setting.source is not None and setting.source.keep is not None
    _require_answers(lessons, _check_outputs(after.task, state.model), kept_too)
    check_texts(after.task, state.model, "the student")
    if state.model is not given:
        artifact.check_savable(state.model, after.task.example_inputs)
    if step.student is not None and step.student.is_another:
        try:
            captured(run, after.task, state.model)
        except GraphError as error:
            raise GraphError(f"the student: {error}") from error
    return trainings


def check_refine(run: Run, state: State, step: Distill) -> dict[str, Training]:
    """Refuse what cannot train a model while it is pruned, and return how each stage trains."""
    if step.student is not None:
        raise RecipeError("refine: the student is the model that is pruned; leave 'student' out")
    trial = replace(state)
    check_teacher(run, trial, step.teacher)
    trainings = check_distill(run, trial, step)
    before, after = (
        {name: tensor.shape for name, tensor in one.model.state_dict().items()} for one in (state, trial)
    )
    if before != after:
        raise RecipeError(
            f"refine: method '{step.method}' leaves another model than the one that is pruned; make it a step of its "
            f"own, before or after"
        )
    return trainings


def _check_cached(run: Run, step: Distill, options: TrainOptions) -> None:
    """What is kept by sample goes with inputs that are the same in every epoch."""
    if step.cache and not run.task.fixed("train", augment=options.augment):
        raise RecipeError(
            "cache: it keeps one output a sample, and the inputs are other ones in each epoch; set augment: false, or "
            "cache: false"
        )


def _require_answers(lessons: Lessons, answers: Tensor, kept_too: bool) -> None:
    """Of one answer a token, the method compares that, and nothing is to be kept."""
    if answers.ndim == 2:
        return
    for stage in lessons.stages:
        if isinstance(stage.step, LogitStep):
            require_classes_last(stage.step.name, answers)
            stage.step.per_token()
    if kept_too:
        raise RecipeError(
            f"cache: it keeps one answer of each sample, (samples, classes), and the models give {list(answers.shape)}; set "
            f"cache: false"
        )


def _check_outputs(task: Task, student: nn.Module) -> Tensor:
    """The student takes the task's inputs, and gives its classes. Returns what it gives."""
    try:
        found = teacher_logits(student, task.example_inputs)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RecipeError(
            f"the student does not run on the inputs of task '{task.name}' ({reason}); give one that takes them"
        ) from None
    if task.num_classes is not None and found.shape[-1] != task.num_classes:
        raise RecipeError(
            f"the student gives {found.shape[-1]} outputs, and the task '{task.name}' has {task.num_classes} classes; "
            f"give it num_classes: {task.num_classes} or, of an artifact, head: new"
        )
    return found
