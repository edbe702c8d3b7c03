"""Whether a model that was trained before reads the tokens that a task gives it."""

from __future__ import annotations

from typing import Any

from lianzhi import files
from lianzhi.errors import RecipeError
from lianzhi.tasks._task import Task
from lianzhi.tasks.text_preprocess import TextPreprocess
from lianzhi.tasks.tokenizer import FILE, FOLDER, PATTERNS, parse, read


def tokenizers_of(task: Task, place: str) -> tuple[Any, Any] | None:
    """The tokenizer of a model's folder and the task's; None where either has none: weights may be of any tokenizer."""
    if not isinstance(task.preprocess, TextPreprocess):
        return None
    root = files.find_folder(place, PATTERNS)
    if not any(next(root.glob(kind), None) for kind in (FILE, f"{FOLDER}/{FILE}", "vocab*", "*.model")):
        return None
    return parse(read(place).text, place), parse(task.preprocess.members[FILE], FILE)


def require_same_tokens(task: Task, place: str, who: str, *, more: str = "") -> None:
    """Raise `RecipeError` where the model at `place` has a tokenizer that is another than the task's."""
    both = tokenizers_of(task, place)
    if both is not None and both[0].to_str() != both[1].to_str():
        raise RecipeError(
            f"{who} {place} reads other tokens than task '{task.name}' gives it; set the task's tokenizer to "
            f"{place}{more}, or give {who.replace('the ', 'a ', 1)} of the task's tokenizer"
        )


def require_same_vocabulary(task: Task, place: str, who: str) -> None:
    """Raise `RecipeError` where an id means another token to the model at `place` than to the task's tokenizer."""
    both = tokenizers_of(task, place)
    if both is None:
        return
    theirs, ours = (tokenizer.get_vocab() for tokenizer in both)
    other = next((token for token, number in ours.items() if theirs.get(token) != number), None)
    if other is not None:
        has = f"has {theirs[other]}" if other in theirs else "does not have it"
        raise RecipeError(
            f"{who} {place} reads other tokens than task '{task.name}' gives it: '{other}' is {ours[other]} there, and the "
            f"model {has}; set the task's tokenizer to {place}, or give a model of the task's tokenizer"
        )
