"""`lianzhi init`: a commented recipe for a model and data that are here. What is not known is asked, or named."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lianzhi import deploy, files, recipe, tasks
from lianzhi.errors import DataError, RecipeError, did_you_mean
from lianzhi.jobs.artifacts import Saved
from lianzhi.jobs.init import comments, data, filling, models, steps, weights, writing
from lianzhi.jobs.init.missing import Ask, Missing, answer
from lianzhi.jobs.prepare import open_task
from lianzhi.pipeline.opening import tokenizer_of
from lianzhi.recipe import ModelSpec, TaskSpec
from lianzhi.tasks import Task, TextPreprocess
from lianzhi.tasks.preprocess import Preprocess
from lianzhi.tasks.recognize import Recognized

AUTO = "auto"
DEFAULT_GOAL = "fastest"


@dataclass(frozen=True)
class Wish:
    """What is told beforehand, as the flags of the command have it; None: to be found, or asked."""

    model: str | None = None
    weights: str | None = None
    data: str | None = None
    task: str | None = None
    goal: str | None = None
    target: str = AUTO
    output: str = "recipe.yaml"
    overrides: Sequence[str] = ()
    force: bool = False


@dataclass(frozen=True)
class Started:
    """What was found and written, and the commands that go on from here. An ONNX file needs no recipe: `recipe` is None."""

    recipe: str | None
    model: str
    data: str
    goal: str | None
    next: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        found = {"recipe": self.recipe, "model": self.model, "data": self.data, "goal": self.goal}
        return {**found, "next": list(self.next), "remarks": list(self.remarks)}

    def __str__(self) -> str:
        goal = [f"goal    {self.goal}: {steps.GOALS[self.goal]}"] if self.goal else []
        wrote = [f"wrote   {self.recipe}"] if self.recipe else []
        lines = [f"model   {self.model}", f"data    {self.data}", *goal, *wrote]
        lines += [f"note    {remark}" for remark in self.remarks]
        return "\n".join([*lines, "", "next:", *(f"  {command}" for command in self.next)])


def init(wish: Wish, ask: Ask | None = None) -> Started:
    """Find a model and data, and write a recipe for them that runs as it stands.

    Nothing of the user's is run: Python files are read, weights too. The data is opened as a run opens it, so that what
    is wrong with it is said here.

    Raises:
        RecipeError: something is not known, and `ask` is None; a flag is wrong; the file is there already.
        DataError, ArtifactError: the data or the weights are damaged.
    """
    if wish.goal is not None and wish.goal not in steps.GOALS:
        raise RecipeError(f"--goal {wish.goal}: no such goal{did_you_mean(wish.goal, steps.GOALS)}")
    if wish.target != AUTO:
        deploy.registry.get(wish.target)
    if Path(wish.output).exists() and not wish.force:
        raise RecipeError(f"-o {wish.output}: is there already; name another file, or add --force")
    told = _told(wish.overrides)
    complaints: list[str] = []
    offered = models.resolve(wish.model) if wish.model is not None else models.look(Path(), complaints)
    if len(offered) == 1 and offered[0].kind == models.ONNX:
        return _of_onnx(offered[0], wish, ask)
    saved = Saved(offered[0].flag).task if len(offered) == 1 and offered[0].kind == models.ARTIFACT else None
    found = _saved_data(saved) if saved and not (wish.data or wish.task) else None
    found = found or data.choose(wish.data, wish.task, told.get("task", {}), ask)
    model = _one(offered, found, complaints, ask)
    if model.kind == models.ONNX:
        return _of_onnx(model, wish, ask)
    return _write(wish, told, model, found, ask)


def _write(
    wish: Wish, told: dict[str, Any], model: models.ModelChoice, found: Recognized, ask: Ask | None
) -> Started:
    """The recipe of a model and data."""
    path = weights.choose(model, wish.weights, ask)
    raw_task = _task(model, found, told.get("task", {}))
    spec = ModelSpec(
        **{key: value for key, value in model.keys.items() if key in ("name", "file", "artifact", "path")}
    )
    task = open_task(TaskSpec(**{**raw_task, **told.get("task", {})}), tokenizer=tokenizer_of(spec))
    keys = filling.fill(model, task, told.get("model", {}), ask)
    if path is not None:
        keys["weights"] = path
    goal = wish.goal or _goal(ask)
    classified = model.classes is not None and model.classes == task.num_classes
    facts = _facts(task, model, trained=path is not None or classified or model.kind == models.ARTIFACT)
    if not facts.train and (goal != "accurate" or not facts.trained):
        raise DataError(
            f"task '{task.name}': there are no samples to train on; give data with a training part, or trained weights and "
            f"--goal accurate, which trains nothing"
        )
    chosen = steps.steps(facts, goal)
    raw: dict[str, Any] = {"model": keys, "task": raw_task, "target": wish.target}
    raw |= (
        {"precision": "int8", "seed": 0} if goal == "smallest" and wish.target != "pytorch" else {"seed": 0}
    )
    raw["steps"] = [{kind: {key: value for key, (value, _) in options.items()}} for kind, options in chosen]
    raw["measure"] = {"batches": [1], "max_drop": steps.LOSS[goal]}
    for assignment in wish.overrides:
        recipe.override(raw, assignment)
    recipe.parse(raw, where="the new recipe")
    text = writing.render(
        raw, comments.comments(raw, chosen, task), comments.head(model, found, goal, wish.output)
    )
    files.write_text(Path(wish.output), text)
    return Started(
        wish.output,
        model.what + (f", weights {path}" if path else ""),
        f"{found.what}{f' in {found.path}' if found.path != Path() else ''}; {comments.sizes(task)}",
        goal,
        _next(wish.output),
        _remarks(facts, model, task),
    )


def _told(overrides: Sequence[str]) -> dict[str, Any]:
    """What `--set` says of the model and of the task, which has to be known before these are looked for."""
    told: dict[str, Any] = {"model": {}, "task": {}}
    for assignment in overrides:
        if assignment.startswith(("model.", "task.")):
            recipe.override(told, assignment)
    return told


def _one(
    offered: list[models.ModelChoice], found: Recognized, complaints: list[str], ask: Ask | None
) -> models.ModelChoice:
    """The model, if there is one; else the one that is chosen."""
    if len(offered) == 1:
        return offered[0]
    choices = tuple((choice.flag, choice.what) for choice in offered)
    what = (
        "Which model?"
        if offered
        else " ".join(["No model was found in this folder.", *(f"{text}." for text in complaints[:2])])
    )
    config = tasks.registry.get(found.task).config
    texts = config is not None and "tokenizer" in config.model_fields
    zoo = (
        "bilstm, or the folder of a Hugging Face model"
        if texts
        else "resnet20 for small images, resnet18 for large ones"
    )
    hint = f"FILE.py:NAME is a class or function of yours, or take one of the zoo ({zoo})"
    again = models.resolve(answer(Missing("--model", what, choices, hint), ask))
    return again[0] if len(again) == 1 else _one(again, found, [], ask)


def _goal(ask: Ask | None) -> str:
    """The goal; the default where nobody can be asked, as no goal does harm."""
    if ask is None:
        return DEFAULT_GOAL
    chosen = ask(Missing("--goal", "What matters most?", tuple(steps.GOALS.items())))
    if chosen not in steps.GOALS:
        raise RecipeError(f"--goal {chosen}: no such goal{did_you_mean(chosen, steps.GOALS)}")
    return chosen


def _saved_data(task: dict[str, Any]) -> Recognized:
    """The data that an artifact was made with."""
    options = {key: value for key, value in task.items() if key not in ("name", "data") and value is not None}
    place = Path(task["data"]) if task.get("data") else Path()
    return Recognized(place, task["name"], f"{task['name']}, which the artifact was trained on", options)


def _task(model: models.ModelChoice, found: Recognized, told: dict[str, Any]) -> dict[str, Any]:
    """The keys under `task`."""
    place = {} if found.path == Path() and not _is_here(found) else {"data": os.fspath(found.path)}
    raw = {"name": found.task, **place, **found.options}
    config = tasks.registry.get(found.task).config
    size = filling.own_size(model, config)
    if size is not None and "size" not in told:
        raw["size"] = size
    reads_tokens = config is not None and "tokenizer" in config.model_fields
    own_words = model.kind in (models.FILE, models.ZOO)
    if reads_tokens and own_words and not {"tokenizer"} & {*told, *raw}:
        raw["tokenizer"] = "words"
    return raw


def _is_here(found: Recognized) -> bool:
    """Whether the current folder itself is the data, and not data that a task finds on its own."""
    try:
        own = data.recognize(Path(), found.options)
    except DataError:
        return False
    return own is not None and own.task == found.task


def _facts(task: Task, model: models.ModelChoice, *, trained: bool) -> steps.Facts:
    if not task.has("calibration"):
        raise DataError(
            f"task '{task.name}': there are no samples to calibrate with; cut some off: --set task.calibration=128"
        )
    transformer = model.kind == models.HUGGINGFACE
    if model.kind == models.ARTIFACT:
        zoo = (Saved(model.flag).json("architecture.json") or {}).get("zoo")
        transformer = isinstance(zoo, dict) and zoo.get("name") == "huggingface"
    side = max(task.preprocess.size) if isinstance(task.preprocess, Preprocess) else 0
    text = isinstance(task.preprocess, TextPreprocess)
    train, validation = (task.size(name) if task.has(name) else 0 for name in ("train", "validation"))
    return steps.Facts(train, validation, task.size("calibration"), side, text, transformer, trained)


def _remarks(facts: steps.Facts, model: models.ModelChoice, task: Task) -> tuple[str, ...]:
    found = [*task.notes]
    if not facts.trained:
        more = (
            "its head is new" if model.kind == models.HUGGINGFACE else "--weights FILE names trained weights"
        )
        found.append(f"the recipe trains first: {more}")
    return tuple(found)


def _next(output: str) -> tuple[str, ...]:
    name = shlex.quote(output)
    folder = shlex.quote(f"out/{Path(output).stem}")
    return (f"lianzhi compress {name} --dry-run", f"lianzhi compress {name} -o {folder}")


def _of_onnx(model: models.ModelChoice, wish: Wish, ask: Ask | None) -> Started:
    """An ONNX file needs no recipe: the command that quantizes it."""
    place = wish.data
    if place is None and wish.task is None:
        found = [item for item in data.look(Path()) if item.task in ("image_folder", "npz")]
        choices = tuple((os.fspath(item.path), item.what) for item in found)
        hint = "a folder of images, or .npz and .npy files with arrays for its inputs"
        text = f"Which data is {model.what} to be calibrated with?"
        place = choices[0][0] if len(choices) == 1 else answer(Missing("--data", text, choices, hint), ask)
    if place is not None and not Path(place).exists():
        raise DataError(f"--data {place}: no such file or folder")
    ports = deploy.load(model.flag, runtime="onnxruntime").inputs
    open_sizes = len(ports) == 1 and len(ports[0].shape) == 4 and None in ports[0].shape[1:]
    command = ["lianzhi", "compress", model.flag]
    command += ["--task", wish.task] if wish.task else []
    command += ["--data", place] if place else []
    command += ["--target", wish.target] if wish.target != AUTO else []
    command += ["--input", "3x224x224"] if open_sizes else []
    command += ["-o", f"out/{Path(model.flag).stem}"]
    remarks = ["an ONNX file needs no recipe: one command quantizes it, and keeps int8 where it is faster"]
    if open_sizes:
        remarks.append(
            f"the file leaves the size of its input {list(ports[0].shape)} open: set --input to yours"
        )
    if place is not None and Path(place).is_dir():
        remarks.append(
            "images are read as (pixel / 255 - mean) / std: set --mean and --std as the model was trained"
        )
    return Started(None, model.what, place or str(wish.task), None, (shlex.join(command),), tuple(remarks))
