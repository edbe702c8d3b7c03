"""Read one of the published text sets from wherever it lies: its own tables, Parquet as on the hub, or the hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError, did_you_mean
from lianzhi.tasks._task import Task
from lianzhi.tasks.metrics import Metric
from lianzhi.tasks.readers import arrow, hf_datasets, tsv
from lianzhi.tasks.readers.table import TextTable, joined
from lianzhi.tasks.readers.text_files import require_all_shards
from lianzhi.tasks.text import TextOptions, assemble_text
from lianzhi.tasks.text_part import TextFacts, TextPart

NO_LABEL = ("-", "-1", "")
NLI = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True)
class Tsv:
    """A file of one part: its name, the columns of its texts and of its label.

    `header` names the columns of a file without a first line of names; `only` is a column, and the value that the
    rows wanted have there.
    """

    file: str
    texts: tuple[str, ...]
    label: str
    header: tuple[str, ...] | None = None
    only: tuple[str, str] | None = None


@dataclass(frozen=True)
class OnHub:
    """A data set on the hub: which of its splits each part is, and its columns."""

    repository: str
    subset: str
    splits: dict[str, str]
    texts: tuple[str, ...]
    label: str = "label"


@dataclass(frozen=True)
class KnownText:
    """A published text set: its folder, the ways in which it lies there, its place on the hub, its classes.

    A layout has a file for each part. `words` are the classes as the files write them (default: numbers). Without
    `labels` it is a score from `lowest` to `highest`. With `gaps`, the published files are known to have broken rows,
    empty texts and rows without a label, which are left out and counted.
    """

    name: str
    title: str
    folder: str
    layouts: tuple[dict[str, Tsv], ...]
    hub: OnHub
    labels: tuple[str, ...] | None
    metrics: dict[str, Metric]
    words: dict[str, int] | None = None
    gaps: bool = False
    lowest: float | None = None
    highest: float | None = None

    @property
    def needs(self) -> str:
        """What `data` has to be."""
        *first, last = (table.file for table in self.layouts[0].values())
        return f"give data: a folder with {', '.join(first)} and {last} ({self.title})"


def open_text(this: KnownText, data: Path | None, options: TextOptions) -> Task:
    """Make the task from the folder with its files, the folder above it, or the hub where none is given."""
    if data is None:
        parts, source = _from_hub(this), f"{this.hub.repository} ({this.hub.subset})"
    else:
        parts, folder = _from_folder(this, data)
        source = str(folder)
    facts = TextFacts(this.name, source, this.labels, this.metrics, this.lowest, this.highest)
    return assemble_text(parts, facts, options)


def _from_folder(this: KnownText, data: Path) -> tuple[dict[str, TextPart], Path]:
    if not data.is_dir():
        raise DataError(f"task '{this.name}': {data}: no such folder; {this.needs}")
    for folder in (data, data / this.folder):
        for layout in this.layouts:
            if (folder / layout["train"].file).is_file():
                return {name: _from_tsv(this, folder, table) for name, table in layout.items()}, folder
    for folder in (data, data / this.hub.subset):
        found = {name: _shards(folder, split) for name, split in this.hub.splits.items()}
        if found["train"]:
            return {name: _from_parquet(this, folder, name, shards) for name, shards in found.items()}, folder
    first = this.layouts[0]["train"].file
    raise DataError(
        f"task '{this.name}': {data} holds neither {first} nor {this.folder}/{first}, nor Parquet files as the hub has "
        f"them; {this.needs}"
    )


def _shards(folder: Path, split: str) -> list[Path]:
    """The Parquet files of one split, in order."""
    found = sorted({*folder.glob(f"{split}.parquet"), *folder.glob(f"{split}-*-of-*.parquet")})
    require_all_shards(found)
    return found


def _from_tsv(this: KnownText, folder: Path, table: Tsv) -> TextPart:
    columns = [*table.texts, table.label, *(table.only[:1] if table.only else ())]
    found = tsv.read(folder / table.file, columns, header=table.header, gaps=this.gaps)
    rows = None
    if table.only is not None:
        column, value = table.only
        rows = [row for row, given in enumerate(found.columns[column]) if given == value]
        if not rows:
            raise DataError(f"{found.where}: no row whose '{column}' is {value!r}; give another file")
    return _part(this, found, table.texts, table.label, rows)


def _from_parquet(this: KnownText, folder: Path, name: str, shards: list[Path]) -> TextPart:
    split = this.hub.splits[name]
    if not shards:
        raise DataError(f"{folder}: no {split}*.parquet beside the other part; {this.needs}")
    columns = (*this.hub.texts, this.hub.label)
    found = joined([arrow.read(file, columns) for file in shards])
    return _part(this, found, this.hub.texts, this.hub.label)


def _from_hub(this: KnownText) -> dict[str, TextPart]:
    hub = this.hub
    parts = {}
    for name, split in hub.splits.items():
        try:
            found = hf_datasets.read(hub.repository, hub.subset, split, (*hub.texts, hub.label))
        except DataError as error:
            raise DataError(f"task '{this.name}': no data was given, and {error}; {this.needs}") from None
        where = f"{hub.repository}, {hub.subset}, {split}"
        table = TextTable(where, found, lambda row, where=where: f"{where}, row {row}")  # type: ignore[misc]
        parts[name] = _part(this, table, hub.texts, hub.label)
    return parts


def _part(
    this: KnownText,
    table: TextTable,
    names: tuple[str, ...],
    label: str,
    rows: Sequence[int] | None = None,
) -> TextPart:
    """The texts and labels of a table's rows; of one with gaps those that are whole."""
    chosen = list(range(len(table)) if rows is None else rows)
    left_out = {"the line is broken": table.broken}
    if this.gaps:
        whole = [row for row in chosen if all(str(table.columns[name][row]).strip() for name in names)]
        left_out["a text is empty"] = len(chosen) - len(whole)
        chosen = [row for row in whole if str(table.columns[label][row]) not in NO_LABEL]
        left_out["there is no label"] = len(whole) - len(chosen)
    texts = [[str(table.columns[name][row]) for row in chosen] for name in names]
    return TextPart(
        texts[0],
        texts[1] if len(texts) > 1 else None,
        _labels(this, table, label, chosen),
        table.where,
        lambda row: table.line(chosen[row]),
        {reason: count for reason, count in left_out.items() if count},
    )


def _labels(this: KnownText, table: TextTable, label: str, rows: Sequence[int]) -> NDArray[Any]:
    values = table.columns[label]
    if this.labels is None:
        return np.asarray([_score(values[row], table, row) for row in rows], np.float32)
    return np.asarray([_class(this, values[row], table, row) for row in rows], np.int64)


def _class(this: KnownText, value: Any, table: TextTable, row: int) -> int:
    """The class of a label as it is written."""
    if this.words is not None and isinstance(value, str):
        if value not in this.words:
            raise DataError(
                f"{table.line(row)}: label {value!r:.40} is unknown{did_you_mean(value, this.words)}"
            )
        return this.words[value]
    try:
        number = int(value)
    except (ValueError, TypeError, OverflowError):
        number = None
    if number is None or "_" in str(value) or number != float(value):
        raise DataError(
            f"{table.line(row)}: label {value!r:.40} is not a class number; mend the line, or look for a tab in its text"
        )
    return number


def _score(value: Any, table: TextTable, row: int) -> float:
    try:
        return float(value)
    except (ValueError, TypeError):
        raise DataError(
            f"{table.line(row)}: score {value!r:.40} is not a number; mend the line, or look for a tab in its text"
        ) from None
