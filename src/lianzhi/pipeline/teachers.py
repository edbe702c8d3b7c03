"""The teacher of a step: which model it is, how it reads the task's texts, and what is refused before anything is trained."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from lianzhi import artifact
from lianzhi.distill import teacher_cache
from lianzhi.distill.methods.teacher import Logits, teacher_logits
from lianzhi.errors import RecipeError
from lianzhi.pipeline.state import ORIGINAL, Run, State
from lianzhi.pipeline.texts import check_texts
from lianzhi.tasks import Task
from lianzhi.tasks.text_preprocess import TextPreprocess
from lianzhi.tasks.texts import retokenized
from lianzhi.tasks.tokenizer import FOLDER
from lianzhi.train.loop import place
from lianzhi.train.options import TrainOptions


def teacher_of(state: State, name: str) -> nn.Module:
    """The teacher of a name: the model as it was before the first step that compressed it, or an artifact's."""
    return state.teacher if name == ORIGINAL else artifact.load(name)


def reads_otherwise(task: Task, state: State, name: str) -> Task | None:
    """The task as the teacher reads it, if it has another tokenizer than the student; else None."""
    if not isinstance(task.preprocess, TextPreprocess):
        return None
    own = state.reads
    if name != ORIGINAL:
        own = TextPreprocess.load(Path(name)) if (Path(name) / FOLDER).is_dir() else None
    return None if own is None or own.digest() == task.preprocess.digest() else retokenized(task, own)


def logits_of_teacher(run: Run, state: State, name: str, options: TrainOptions) -> Logits:
    """The teacher's logits of the task's training batches; where it reads other tokens they are kept by sample."""
    teacher, reads = teacher_of(state, name), reads_otherwise(run.task, state, name)
    if reads is None:
        return Logits(teacher)
    return Logits(
        teacher,
        lambda: teacher_cache.kept(
            teacher,
            reads,
            teacher_cache.folder(),
            batch_size=options.batch_size,
            device=place(run.recipe.device),
            progress=run.progress,
        ),
    )


def check_teacher(run: Run, state: State, name: str) -> None:
    """Refuse an artifact that cannot teach the model: other inputs, or other classes.

    Raises:
        ArtifactError: there is no such artifact, or it is damaged.
        RecipeError: it takes other inputs, or has other classes, or has them in another order.
    """
    if name == ORIGINAL:
        return
    teacher = artifact.load(name)
    read = reads_otherwise(run.task, state, name) or run.task
    try:
        theirs = tuple(teacher_logits(teacher, read.example_inputs).shape)
        ours = tuple(teacher_logits(state.model, run.task.example_inputs).shape)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RecipeError(
            f"the teacher {name} does not run on the inputs of task '{run.task.name}' ({reason}); give one "
            f"that takes the same inputs"
        ) from None
    if theirs != ours:
        raise RecipeError(
            f"the teacher {name} gives {theirs[-1]} outputs, and the model {ours[-1]}; give a teacher of the "
            f"same classes"
        )
    check_texts(read, teacher, f"the teacher {name}")
    check_labels(run.task, name, f"the teacher {name}")


def check_keeping(run: Run, state: State, name: str) -> None:
    """Refuse, where the teacher's logits have to be kept by sample, a cache folder that cannot hold them.

    Raises:
        ArtifactError: it is a file, or cannot be written to.
    """
    if reads_otherwise(run.task, state, name) is not None:
        teacher_cache.require_usable(teacher_cache.folder(), named=True, mark={})


RENEW = ", or its last layer anew (head: new)"


def check_labels(task: Task, folder: str, who: str, more: str = "") -> None:
    """Raise `RecipeError` where an artifact names the task's classes otherwise, or in another order; `more` is another way out."""
    labels = artifact.labels_of(folder)
    if not labels or not task.labels or labels == task.labels:
        return
    if len(labels) != len(task.labels):
        raise RecipeError(
            f"{who} has {len(labels)} classes by name, and the task '{task.name}' {len(task.labels)}; give one of the "
            f"same classes{more}"
        )
    number = next(n for n, (one, two) in enumerate(zip(labels, task.labels, strict=True)) if one != two)
    raise RecipeError(
        f"{who} calls class {number} '{labels[number]}', and the task '{task.labels[number]}'; give one of the same "
        f"classes in the same order{more}"
    )
