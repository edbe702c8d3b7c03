"""Texts of one's own, by what their files are called: the parts of a folder, and the reader of each kind of file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lianzhi.errors import DataError, did_you_mean
from lianzhi.tasks.readers import arrow, csv_table, jsonl, tsv
from lianzhi.tasks.readers.table import TextTable, joined
from lianzhi.tasks.text_columns import LABELS, SCORES

ENDINGS = (".tsv", ".csv", ".jsonl", ".json", arrow.PARQUET, arrow.ARROW)
PARTS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
KINDS = ", ".join(ENDINGS)
HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # owner/name
SHARD = re.compile(r"-(\d+)-of-(\d+)$")
KEPT = "cache-"  # what `Dataset.map` leaves beside the data


def find(data: Path) -> dict[str, list[Path]]:
    """The files of each part: of a folder by name, of a file that file alone, as ``train``.

    A part is ``train.csv``, ``train-00000-of-00002.parquet`` (and the next ones), here or in a folder ``data``, or a
    folder ``train`` with Arrow or Parquet files, as `Dataset.save_to_disk` writes it.

    Raises:
        DataError: there is nothing there, or a part has files of several kinds.
    """
    if data.is_file():
        return {"train": [checked(data)]}
    if not data.is_dir():
        raise missing(data)
    alone = sorted(data.glob(f"data-*{arrow.ARROW}"))  # one Dataset, not a DatasetDict
    if alone:
        require_all_shards(alone)
        return {"train": alone}
    found: dict[str, list[Path]] = {}
    for part, names in PARTS.items():
        files = sorted(
            file for name in names for folder in (data, data / "data") for file in _of(folder, name)
        )
        stems = {(SHARD.sub("", file.stem), file.suffix, file.parent) for file in files}
        if len(stems) > 1:
            raise DataError(
                f"{data}: several files may be the {part} part: {', '.join(file.name for file in files)}; say which "
                f"with files: {{{part}: {files[0].name}}}"
            )
        if files:
            require_all_shards(files)
            found[part] = files
    return found


def missing(data: Path) -> DataError:
    """What is said where nothing is there; of what is called like a data set of the hub, how it becomes a folder."""
    named = data.as_posix()
    if not HUB.fullmatch(named) or Path(data.parts[0]).exists():
        return DataError(f"{data}: no such file or folder")
    return DataError(
        f"{data}: no such file or folder; a data set of the Hugging Face hub is read from a folder that `datasets` saves: "
        f"datasets.load_dataset('{named}').save_to_disk('{data.name}'), then data: {data.name}"
    )


def require_all_shards(files: Sequence[Path]) -> None:
    """Raise `DataError` where files are named as parts of a whole, ``…-00000-of-00003``, and one is not there."""
    shards = [SHARD.search(file.stem) for file in files]
    numbers = {(int(shard[2]), int(shard[1])) for shard in shards if shard is not None}
    for count in {count for count, _ in numbers}:
        gone = next((number for number in range(count) if (count, number) not in numbers), None)
        if gone is not None:
            raise DataError(
                f"{files[0].parent}: shard {gone} of {count} (from 0) is not there beside {files[0].name}; a part needs all "
                f"of its files, or rename the ones that shall be all"
            )


def checked(file: Path) -> Path:
    """A file of a kind that is read."""
    if file.suffix.lower() not in ENDINGS:
        raise DataError(
            f"{file}: of an unknown kind{did_you_mean(file.suffix, ENDINGS)}; give one of {KINDS}"
        )
    return file


def names(file: Path, header: Sequence[str] | None) -> list[str]:
    """The columns of a file; `header` are those of one without a line of names."""
    kind = file.suffix.lower()
    if header is not None and kind not in (".tsv", ".csv"):
        raise DataError(
            f"{file}: 'header' names the columns of a TSV or CSV file, and this one has names of its own; leave it out"
        )
    if kind in (arrow.PARQUET, arrow.ARROW):
        return arrow.names(file)
    if kind in (".jsonl", ".json"):
        return jsonl.names(file)
    if header is not None:
        return list(header)
    return csv_table.names(file) if kind == ".csv" else tsv.names(file)


def read(files: Sequence[Path], columns: Sequence[str], header: Sequence[str] | None) -> TextTable:
    """The columns of one part, in the order of its files; the last one is that of the labels.

    Raises:
        DataError: a file cannot be read, or there are no rows.
    """
    found = joined([_read(file, columns, header) for file in files])
    if not len(found):
        raise DataError(f"{files[0]}: no rows; an empty part cannot be used")
    return found


def _read(file: Path, columns: Sequence[str], header: Sequence[str] | None) -> TextTable:
    kind = file.suffix.lower()
    if kind in (arrow.PARQUET, arrow.ARROW):
        return arrow.read(file, columns)
    if kind in (".jsonl", ".json"):
        return jsonl.read(file, columns)
    if header is not None and names(file, None) == list(header):
        raise DataError(f"{file}: its first line names the columns as 'header' does; leave 'header' out")
    table = (csv_table if kind == ".csv" else tsv).read(file, columns, header=header)
    if header is not None:
        _require_sample(table, columns[-1])
    return table


def _require_sample(table: TextTable, label: str) -> None:
    """Refuse a first line that names columns, and not as `header` does: its label is called one, and is so only there."""
    values = table.columns[label]
    if values[0].strip().casefold() in {label.casefold(), *LABELS, *SCORES} and values.count(values[0]) == 1:
        raise DataError(
            f"{table.line(0)}: '{values[0]}' under '{label}' is the name of a column and no label; take the line out, or "
            f"leave 'header' out and say text: NAME and label: NAME"
        )


def _of(folder: Path, name: str) -> list[Path]:
    """The files of a part of that name in a folder."""
    if not folder.is_dir():
        return []
    pattern = re.compile(rf"{name}(-\d+-of-\d+)?")
    here = [
        file for file in folder.iterdir() if file.suffix.lower() in ENDINGS and pattern.fullmatch(file.stem)
    ]
    shards = [*(folder / name).glob(f"*{arrow.ARROW}"), *(folder / name).glob(f"*{arrow.PARQUET}")]
    return here + [file for file in shards if not file.name.startswith(KEPT)]
