"""The step `reduce_vocabulary`: a smaller tokenizer, the embeddings that go with it, and the task as they read it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi import prune
from lianzhi.errors import RecipeError
from lianzhi.pipeline.state import Run, State
from lianzhi.recipe import ReduceVocabulary
from lianzhi.tasks import TextPreprocess
from lianzhi.tasks.texts import retokenized
from lianzhi.tasks.vocabulary import count_tokens, reduced

Details = dict[str, Any]


def run_vocabulary(run: Run, state: State, step: ReduceVocabulary, folder: Path, *, resume: bool) -> Details:
    """Carry the step out on the state."""
    before = preprocess_of(run).tokenizer.get_vocab_size()
    rows = _reduce(run, state, step)
    return {"tokens_before": before, "tokens_after": len(rows)}


def replay_vocabulary(run: Run, state: State, step: ReduceVocabulary) -> None:
    """Give the state the sizes that a finished step left."""
    _reduce(run, state, step)


def _reduce(run: Run, state: State, step: ReduceVocabulary) -> NDArray[np.int64]:
    own = preprocess_of(run)
    tables = prune.token_tables(state.model, own.ids)
    made, rows = reduced(own, count_tokens(run.task), size=step.size, least=step.least)
    prune.keep_tokens(state.model, rows, tables)
    state.reads = state.reads or own
    state.task = retokenized(run.task, made)
    return rows


def preprocess_of(run: Run) -> TextPreprocess:
    """How the task's texts become tokens; refuses a task that is not of texts."""
    found = run.task.preprocess
    if not isinstance(found, TextPreprocess) or not run.task.has("train"):
        raise RecipeError(
            f"task '{run.task.name}' has no training texts, so there is no vocabulary to reduce; leave the step out"
        )
    return found


def check_vocabulary(run: Run, state: State, step: ReduceVocabulary) -> None:
    """Refuse what cannot work; the state is as after the step, with a model of its own."""
    state.model = copy.deepcopy(state.model)
    _reduce(run, state, step)
