"""Whether a model reads every text of a task: the longest one, and the last token of its vocabulary."""

from __future__ import annotations

from torch import nn

from lianzhi.distill.lengths import require_runs
from lianzhi.tasks import Task
from lianzhi.tasks.texts import extremes


def check_texts(task: Task, model: nn.Module, who: str) -> None:
    """Refuse a model that has too few positions or tokens for the texts; training would end at the first such text.

    Raises:
        DataError: the model does not run on one of them.
    """
    for place, (what, inputs) in enumerate(extremes(task)):  # the longest comes first
        said = f"{who} runs on other texts of task '{task.name}', and not on {what}"
        require_runs(model, inputs, said, short=place > 0)
