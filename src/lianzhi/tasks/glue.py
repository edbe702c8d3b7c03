"""GLUE's tasks (Wang et al. 2018, 1804.07461) from their own TSV files, or from the hub.

GLUE's labels of its test part are secret: ``dev`` is what is reported, and what one chooses by is cut from train.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lianzhi.errors import DataError, did_you_mean
from lianzhi.tasks._task import Task
from lianzhi.tasks.metrics import Metric
from lianzhi.tasks.readers import hf_datasets, tsv
from lianzhi.tasks.text import TextFacts, TextOptions, TextPart, assemble_text

HUB = "nyu-mll/glue"
FILES = {"train": "train.tsv", "test": "dev.tsv"}
TABLES = " and ".join(FILES.values())
HUB_SPLITS = {"train": "train", "test": "validation"}


@dataclass(frozen=True)
class GlueTask:
    """One of GLUE's tasks: its folder, its columns there and on the hub, its classes.

    `label` is the column of the class, in the file a number or one of `words`.
    """

    name: str
    folder: str
    sentences: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    metrics: dict[str, Metric]
    hub_sentences: tuple[str, ...]
    words: dict[str, int] | None = None
    header: tuple[str, ...] | None = None


def open_glue(this: GlueTask, data: Path | None, options: TextOptions) -> Task:
    """Make the task from the folder with its TSV files, the folder above it, or the hub where none is given."""
    if data is None:
        parts, source = _from_hub(this), f"{HUB} ({this.name})"
    else:
        folder = _folder(this, data)
        parts, source = {name: _from_file(this, folder / file) for name, file in FILES.items()}, str(folder)
    return assemble_text(parts, TextFacts(this.name, source, this.labels, this.metrics), options)


def _folder(this: GlueTask, data: Path) -> Path:
    if not data.is_dir():
        raise DataError(
            f"task '{this.name}': {data}: no such folder; give data: a folder with {TABLES} (GLUE's {this.folder})"
        )
    for folder in (data, data / this.folder):
        if (folder / FILES["train"]).is_file():
            return folder
    raise DataError(
        f"task '{this.name}': {data} holds neither {FILES['train']} nor {this.folder}/{FILES['train']}; "
        f"give data: a folder with {TABLES} (GLUE's {this.folder})"
    )


def _from_file(this: GlueTask, file: Path) -> TextPart:
    table = tsv.read(file, (*this.sentences, this.label), header=this.header)
    labels = np.asarray(
        [_number(this, text, table, row) for row, text in enumerate(table.columns[this.label])]
    )
    texts = [table.columns[name] for name in this.sentences]
    return TextPart(texts[0], texts[1] if len(texts) > 1 else None, labels, str(file), table.line)


def _number(this: GlueTask, text: str, table: tsv.TextTable, row: int) -> int:
    """The class of a label as it is written in the file."""
    if this.words is not None:
        if text not in this.words:
            raise DataError(
                f"{table.line(row)}: label {text!r:.40} is unknown{did_you_mean(text, this.words)}"
            )
        return this.words[text]
    try:
        return int(text)
    except ValueError:
        raise DataError(
            f"{table.line(row)}: label {text!r:.40} is not a class number; mend the line, or look for a tab in its text"
        ) from None


def _from_hub(this: GlueTask) -> dict[str, TextPart]:
    parts = {}
    for name, split in HUB_SPLITS.items():
        try:
            found = hf_datasets.read(HUB, this.name, split, (*this.hub_sentences, "label"))
        except DataError as error:
            raise DataError(
                f"task '{this.name}': no data was given, and {error}; give data: a folder with {TABLES} (GLUE's {this.folder})"
            ) from None
        parts[name] = _of_hub(this, split, found)
    return parts


def _of_hub(this: GlueTask, split: str, found: dict[str, list[Any]]) -> TextPart:
    where = f"{HUB}, {this.name}, {split}"
    texts = [[str(text) for text in found[name]] for name in this.hub_sentences]
    labels = np.asarray(found["label"], np.int64)
    return TextPart(
        texts[0], texts[1] if len(texts) > 1 else None, labels, where, lambda row: f"{where}, row {row}"
    )
