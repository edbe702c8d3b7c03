"""How long the texts may be that models read: no longer than the positions that each of them has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi.errors import DataError
from lianzhi.graph import device_of, in_eval, moved
from lianzhi.tasks import Task, TextPreprocess
from lianzhi.tasks.texts import extremes, retokenized
from lianzhi.train.default_step import call

FAILURES = (RuntimeError, TypeError, ValueError, IndexError)
OFFSET = 2  # positions that RoBERTa leaves unused


def fitted(task: Task, *models: nn.Module, longest: int | None = None) -> TextPreprocess | None:
    """The task's preprocessing, its `max_length` no larger than what the models run on; None for other than texts.

    The task's own texts may all be short, and those that the models are to read one day are not. `longest` takes the
    place of the task's `max_length`.
    """
    preprocess = task.preprocess
    if not isinstance(preprocess, TextPreprocess):
        return None
    if longest is not None:
        preprocess = replace(preprocess, max_length=longest)
    texts = extremes(task)
    for model in models if texts else ():
        preprocess = replace(preprocess, max_length=_runs(model, texts[0][1], preprocess.max_length))
    return preprocess


def fitting(task: Task, *models: nn.Module) -> Task:
    """The task, its texts cut to what the models run on; the same one where they run on all that it may give."""
    preprocess = fitted(task, *models)
    return task if preprocess is None or preprocess == task.preprocess else retokenized(task, preprocess)


def run_once(model: nn.Module, inputs: Any) -> None:
    """Run a model as it predicts; raises one of `FAILURES` where it cannot."""
    with in_eval(model), torch.no_grad():
        call(model, moved(inputs, device_of(model)))


def require_runs(model: nn.Module, inputs: Any, said: str, *, short: bool = False) -> None:
    """Raise `DataError` where a model does not run on these texts; `said` are the first words of it.

    `short`: it runs on texts as long, so that it is the tokens that it has no place for.
    """
    try:
        run_once(model, inputs)
    except FAILURES as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        positions = "" if short else "set the task's max_length to the positions that the model has, and "
        raise DataError(
            f"{said} ({reason}); {positions}give a model and a tokenizer of one vocabulary"
        ) from None


def _runs(model: nn.Module, example: Any, most: int) -> int:
    """On how many tokens a model runs, `most` at most; where it says of no positions, or runs on none, `most`."""
    config: Any = getattr(model, "config", None)
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions >= most + OFFSET:
        return most
    runs, fails = 0, most + 1
    while fails - runs > 1:
        middle = (runs + fails) // 2
        try:
            run_once(model, {name: _as_long(value, middle) for name, value in example.items()})
            runs = middle
        except FAILURES:
            fails = middle
    return runs or most


def _as_long(value: Tensor, length: int) -> Tensor:
    """The first column so often that with the last one, where a classifier may look, it is so long."""
    return torch.cat([value[:, :1].repeat(1, length - 1), value[:, -1:]], 1)
