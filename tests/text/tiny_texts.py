"""A task of tiny texts in the vocabulary of `tiny_corpus`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tiny_corpus import sentences, write_tokenizer

from lianzhi.tasks import Task
from lianzhi.tasks.metrics import top1
from lianzhi.tasks.text import TextOptions, assemble_text
from lianzhi.tasks.text_part import TextFacts, TextPart


def tiny_task(folder: Path, lines: Sequence[str] | None = None, *, max_length: int = 24) -> Task:
    """40 texts, or given ones, of an even or an odd number of letters."""
    place = write_tokenizer(folder / "tokenizer")
    lines = sentences(40, 0) if lines is None else lines
    labels = np.asarray([len(line) % 2 for line in lines])
    part = TextPart(lines, None, labels, "made up", lambda row: f"row {row}")
    facts = TextFacts("tiny", "made up", ("even", "odd"), {"accuracy": top1})
    options = TextOptions(tokenizer=str(place), validation=8, calibration=0, max_length=max_length)
    return assemble_text({"train": part}, facts, options)
