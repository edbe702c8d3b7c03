"""Evaluate an artifact or an ONNX file on a task, through its runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lianzhi import artifact, deploy, files, measure, tasks, train
from lianzhi.errors import DataError, RecipeError
from lianzhi.jobs.artifacts import Saved
from lianzhi.jobs.prepare import open_task
from lianzhi.recipe import TaskSpec
from lianzhi.tasks import Task, TextPreprocess

LISTED = 12
EMPTY = " (of a class without images, an empty folder of its name)"


def evaluate(
    path: Path,
    *,
    task: str | None = None,
    data: str | None = None,
    split: str | None = None,
    runtime: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    batch: int = 256,
    device: str | None = None,
    options: dict[str, Any] | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Return the metrics of a model on a split of a task; defaults come from the artifact's recipe.

    One file of texts that is given, and is not the recipe's own, is counted whole where no split is named.
    """
    saved = Saved(path)
    given = options if split is not None else {**_whole(saved, task, data), **(options or {})}
    source, own_task = task_for(saved, task=task, data=data, options=given)
    where = saved.where(runtime, precision)
    session = deploy.load(
        saved.model_file(where.runtime),
        runtime=where.runtime,
        precision=where.precision,
        threads=threads,
        device=checked_device(device),
    )
    _check_classes(path, session.by_name(source.example_inputs), source, own_task=own_task)
    result = measure.evaluate(session, source, split=split, batch_size=batch, progress=progress)
    return {
        "model": str(path),
        "runtime": where.runtime,
        "precision": where.precision,
        "task": source.name,
        "split": result.split,
        "metric": result.metric,
        "value": result.value,
        "metrics": result.metrics,
        "samples": result.samples,
    }


def checked_device(device: str | None) -> str | None:
    """A device that this machine has; None stays None."""
    return None if device is None else str(train.check_device(device))


def task_for(
    saved: Saved, *, task: str | None, data: str | None, options: dict[str, Any] | None
) -> tuple[Task, bool]:
    """The task of a saved model, and whether it is its own; defaults come from the recipe beside the model.

    Its classes have the model's numbers: a task that can be told their names is told them.

    Raises:
        DataError: the data calls a class otherwise, has the classes in another order, or has pairs of texts where the
            model was trained on one at a time, or the other way round.
    """
    known = saved.task
    if task is None and known is None:
        raise RecipeError(
            f"{saved.path}: no recipe beside it says which task it is for; add --task NAME --data DIR"
        )
    own = {key: value for key, value in (known or {}).items() if key not in ("name", "data")}
    if task is not None and known is not None and task != known["name"]:
        own, known = {}, None
    if (saved.folder / "tokenizer").is_dir():
        own["tokenizer"] = str(saved.folder)
        own["max_length"] = TextPreprocess.load(saved.folder).max_length  # as `predict` cuts
    name, given = task or known["name"], {**own, **(options or {})}  # type: ignore[index]
    names = artifact.labels_of(saved.folder)
    if names and not given.get("score") and not given.get("labels"):
        given |= _told(name, names)
    found = open_task(TaskSpec(name=name, data=data or (known or {}).get("data"), options=given))
    _check_names(saved.path, names, found)
    _check_pairs(saved, found)
    return found, known is not None


def _whole(saved: Saved, task: str | None, data: str | None) -> dict[str, Any]:
    """The option that makes one file all of the reported part, of a task that would cut a tenth from it."""
    known = saved.task or {}
    name = task or known.get("name")
    if data is None or name is None or not Path(data).is_file():
        return {}
    config = tasks.registry.get(name).config
    if config is None or "files" not in config.model_fields:
        return {}
    trained = known.get("data") if name == known.get("name") else None
    if trained is not None and Path(trained).exists() and Path(trained).samefile(data):
        return {}
    return {"files": {"test": Path(data).name}}


def _told(task: str, names: list[str]) -> dict[str, Any]:
    """The options that tell a task the names of its classes; elsewhere `labels` may be the name of a column."""
    config = tasks.registry.get(task).config
    fields = {} if config is None else config.model_fields
    if "labels" not in fields or fields["labels"].annotation != tuple[str, ...] | None:
        return {}
    return {"labels": names, **({"rename": False} if "rename" in fields else {})}


def _check_names(path: Path, names: list[str], task: Task) -> None:
    """Refuse a task whose class of some number is another one than the model's: its accuracy would be of mixed classes.

    One with the first of the model's classes has the same numbers.
    """
    for number, (ours, theirs) in enumerate(zip(task.labels or (), names, strict=False)):
        if ours != theirs:
            raise DataError(
                f"{path} calls class {number} '{theirs}', and the task '{task.name}' on {task.source} '{ours}'; evaluate it "
                f"on data with its classes in its order: {', '.join(names[:LISTED])}{', …' * (len(names) > LISTED)}"
                f"{EMPTY if task.name == 'image_folder' else ''}"
            )


def _check_pairs(saved: Saved, task: Task) -> None:
    """Refuse pairs of texts for a model of single ones, and the other way round. Older artifacts do not say it."""
    file = saved.folder / "preprocess.json"
    told = files.read_json(file) if file.is_file() else {}
    ours = task.preprocess
    if not isinstance(ours, TextPreprocess) or not isinstance(told, dict) or told.get("kind") != "text":
        return
    if told.get("pairs", ours.pairs) != ours.pairs:
        one, other = ("pairs of texts", "single ones") if ours.pairs else ("single texts", "pairs of them")
        raise DataError(
            f"{saved.path} was trained on {other}, and the task '{task.name}' on {task.source} has {one}; evaluate it on "
            f"data of its kind"
        )


def _check_classes(path: Path, outputs: Any, task: tasks.Task, *, own_task: bool) -> None:
    """Refuse a task of another number of classes: its accuracy would be a number without a meaning."""
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
    shape: tuple[int, ...] = tuple(getattr(logits, "shape", ()))
    if task.num_classes is None or len(shape) != 2:
        return
    strict = task.scores or not own_task
    if shape[1] < task.num_classes or (shape[1] != task.num_classes and strict):
        wanted = "a score" if task.scores else f"{task.num_classes} classes"
        raise DataError(
            f"{path} gives {shape[1]} outputs, and the task '{task.name}' has {wanted}; "
            f"evaluate it on the task that it was trained for (--task, --data)"
        )
