"""The texts behind a task's tokens: read them, read them with another tokenizer, train on others."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lianzhi.errors import DataError
from lianzhi.tasks._task import Task
from lianzhi.tasks.batch import Inputs
from lianzhi.tasks.text import cut_notes
from lianzhi.tasks.text_part import TextPart, check_classes, check_scores, check_texts, keys_of
from lianzhi.tasks.text_preprocess import TextPreprocess
from lianzhi.tasks.token_split import TokenSplit
from lianzhi.tasks.tokens import Tokens, tokenize


@dataclass(frozen=True)
class Texts:
    """Texts of a split, the second texts where they are pairs, and the labels, of shape (samples,)."""

    texts: list[str]
    pairs: list[str] | None
    labels: NDArray[Any]

    def __len__(self) -> int:
        return len(self.texts)


def texts_of(task: Task, split: str) -> Texts:
    """The texts of a split in the order of its samples' ids.

    ```python
    train = texts_of(task, "train")
    train.texts[batch.ids[0]], train.labels[batch.ids[0]]
    ```

    Raises:
        DataError: there is no such split, or the task is not of texts.
    """
    part = _split(task, split)
    tokens = part.tokens
    return Texts(
        [tokens.texts[row] for row in part.rows],
        None if tokens.pairs is None else [tokens.pairs[row] for row in part.rows],
        part.labels,
    )


def retokenized(task: Task, preprocess: TextPreprocess) -> Task:
    """The same texts, splits, labels and sample ids, as another tokenizer gives them to a model.

    Raises:
        DataError: the task is not of texts.
    """
    pairs = any(_split(task, name).preprocess.pairs for name in task.splits)
    if preprocess.pairs != pairs:
        preprocess = dataclasses.replace(preprocess, pairs=pairs)
    made: dict[int, Tokens] = {}
    splits = {}
    for name in task.splits:
        part = _split(task, name)
        old = part.tokens
        if id(old) not in made:
            made[id(old)] = tokenize(old.texts, old.pairs, preprocess)
        splits[name] = TokenSplit(made[id(old)], part.rows, part.labels, preprocess, bucket=part.bucket)
    return _changed(task, splits, preprocess)


def extremes(task: Task) -> list[tuple[str, Inputs]]:
    """The texts that ask most of a model, in words and as batches of one: the longest, and one of the last token.

    They are of all splits. Where no text has the tokenizer's last token, it is put in, for those to come may have it. A
    task that is not of texts has none.
    """
    parts = [part for part in task.splits.values() if isinstance(part, TokenSplit) and part.size]
    if not parts:
        return []
    length, longest = max((part.longest() for part in parts), key=lambda found: found[0])
    token, last = max((part.last_token() for part in parts), key=lambda found: found[0])
    found = [(f"the longest text, of {length} tokens", longest), (f"a text with token {token:,}", last)]
    final = max(part.preprocess.ids for part in parts) - 1
    if final > token and length > 2:
        assert isinstance(longest, dict)
        ids = longest["input_ids"].clone()
        ids[0, 1] = final  # a word's place: what begins and ends a text stays
        found.append((f"the tokenizer's last token, {final:,}", {**longest, "input_ids": ids}))
    return found


def with_train(task: Task, texts: Sequence[str], pairs: Sequence[str] | None, labels: ArrayLike) -> Task:
    """The task with other texts to train on, an augmented training split say; all else is as it was.

    A text's id is its place. Those that stand in another split too, up to case and white space, are left out, and
    the task's notes say how many: `texts_of` gives the rest, in the order of their ids.

    Raises:
        DataError: the task is not of texts; texts, pairs and labels do not go together; a text is empty or a label
            is none of the task's.
    """
    others = {name: _split(task, name) for name in task.splits if name != "train"}
    old = _split(task, "train")
    values = np.asarray(labels)
    _check_shapes(task, old, texts, pairs, values)
    part = TextPart(
        list(texts),
        None if pairs is None else list(pairs),
        values.astype(old.labels.dtype),
        f"the new training texts of task '{task.name}'",
        lambda row: f"the new training texts of task '{task.name}', text {row}",
    )
    check_texts(part)
    if task.scores:
        check_scores(part)
    else:
        check_classes(part, task.num_classes or 0)
    elsewhere = {key for name in others for key in _keys(texts_of(task, name))}
    rows = np.asarray([row for row, key in enumerate(part.keys()) if key not in elsewhere], np.int64)
    if not len(rows):
        raise DataError(f"{part.where}: none is left, all stand in other splits too; give more")
    train = TokenSplit(
        tokenize(part.texts, part.pairs, old.preprocess),
        rows,
        part.labels[rows],
        old.preprocess,
        bucket=old.bucket,
    )
    made = _changed(task, {"train": train, **others}, old.preprocess)
    if len(rows) < len(part.texts):
        left = len(part.texts) - len(rows)
        made.notes += (f"{left:,} of the new training texts stand in another split too and were left out",)
    return made


def _split(task: Task, name: str) -> TokenSplit:
    """A split of tokens, which knows its texts."""
    task.size(name)  # says which splits there are
    part = task.splits[name]
    if not isinstance(part, TokenSplit):
        raise DataError(
            f"task '{task.name}' is not of texts: its {name} split holds no sentences; give a text task"
        )
    return part


def _keys(texts: Texts) -> list[str]:
    return keys_of(texts.texts, texts.pairs)


def _check_shapes(
    task: Task,
    old: TokenSplit,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    labels: NDArray[Any],
) -> None:
    """One label and, in a task of pairs, one second text for each text."""
    if (pairs is None) != (old.tokens.pairs is None):
        kind = "single texts" if pairs is not None else "pairs"
        raise DataError(f"task '{task.name}' is of {kind}, and the new training texts are not")
    second = len(texts) if pairs is None else len(pairs)
    if labels.shape != (len(texts),) or second != len(texts):
        raise DataError(
            f"task '{task.name}': {len(texts)} new training texts, {second} second texts and labels of shape "
            f"{labels.shape}; give one of each a sample"
        )
    if labels.dtype.kind not in ("iu" if old.labels.dtype.kind == "i" else "iuf"):
        raise DataError(
            f"task '{task.name}': the new labels are {labels.dtype}, and the task's are {old.labels.dtype}"
        )


def _changed(task: Task, splits: dict[str, TokenSplit], preprocess: TextPreprocess) -> Task:
    """The task with other splits, and with what is said of them."""
    old = {name: part for name, part in task.splits.items() if isinstance(part, TokenSplit)}
    stale = set(cut_notes(old))
    made = copy.copy(task)
    made.splits = {name: splits[name] for name in task.splits}
    made.preprocess = preprocess
    made.notes = (*(note for note in task.notes if note not in stale), *cut_notes(splits))
    made.example_inputs = splits[made.reported].example()
    return made
