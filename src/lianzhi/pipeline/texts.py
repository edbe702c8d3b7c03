"""Whether a model reads every text of a task: the longest one, and the last token of its vocabulary."""

from __future__ import annotations

from torch import nn

from lianzhi.distill.lengths import FAILURES, run_once
from lianzhi.errors import DataError
from lianzhi.tasks import Task
from lianzhi.tasks.texts import extremes


def check_texts(task: Task, model: nn.Module, who: str) -> None:
    """Refuse a model that has too few positions or tokens for the texts; training would end at the first such text.

    Raises:
        DataError: the model does not run on one of them.
    """
    for what, inputs in extremes(task):
        try:
            run_once(model, inputs)
        except FAILURES as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"{who} runs on other texts of task '{task.name}', and not on {what} ({reason}); set the task's "
                f"max_length to the positions that the model has, and give a model and a tokenizer of one vocabulary"
            ) from None
