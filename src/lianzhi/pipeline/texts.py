"""Whether a model reads every text of a task: the longest one, the last token of its vocabulary, and how long others may be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lianzhi.errors import DataError
from lianzhi.graph import device_of, in_eval, moved
from lianzhi.tasks import Task, TextPreprocess
from lianzhi.tasks.texts import extremes
from lianzhi.train.default_step import call

FAILURES = (RuntimeError, TypeError, ValueError, IndexError)
OFFSET = 2  # positions that RoBERTa leaves unused


def check_texts(task: Task, model: nn.Module, who: str) -> None:
    """Refuse a model that has too few positions or tokens for the texts; training would end at the first such text.

    Raises:
        DataError: the model does not run on one of them.
    """
    for what, inputs in extremes(task):
        try:
            _run(model, inputs)
        except FAILURES as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"{who} runs on other texts of task '{task.name}', and not on {what} ({reason}); set the task's "
                f"max_length to the positions that the model has, and give a model and a tokenizer of one vocabulary"
            ) from None


def fitted(task: Task, model: nn.Module) -> TextPreprocess | None:
    """The task's preprocessing, its `max_length` no larger than what the model runs on; None for other than texts.

    The task's own texts may all be short, and those that the model is to read one day are not.
    """
    preprocess = task.preprocess
    if not isinstance(preprocess, TextPreprocess):
        return None
    config: Any = getattr(model, "config", None)
    positions = getattr(config, "max_position_embeddings", None)
    texts = extremes(task)
    if not texts or not isinstance(positions, int) or positions >= preprocess.max_length + OFFSET:
        return preprocess
    example: Any = texts[0][1]  # the longest one, which the model runs on
    runs, fails = example["input_ids"].shape[1], preprocess.max_length + 1
    while fails - runs > 1:
        middle = (runs + fails) // 2
        try:
            _run(model, {name: value[:, :1].repeat(1, middle) for name, value in example.items()})
            runs = middle
        except FAILURES:
            fails = middle
    return replace(preprocess, max_length=runs)


def _run(model: nn.Module, inputs: Any) -> None:
    with in_eval(model), torch.no_grad():
        call(model, moved(inputs, device_of(model)))
