"""Texts of one's own: tables with a column of texts, or two, and one of classes or scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray
from pydantic import Field

from lianzhi.errors import DataError, RecipeError
from lianzhi.tasks._task import Task
from lianzhi.tasks.confusion import class_metrics
from lianzhi.tasks.correlations import score_metrics
from lianzhi.tasks.options import Count
from lianzhi.tasks.readers import text_files
from lianzhi.tasks.readers.table import TextTable
from lianzhi.tasks.text import TextOptions, assemble_text
from lianzhi.tasks.text_columns import Columns, columns_of
from lianzhi.tasks.text_labels import Classes, scores
from lianzhi.tasks.text_part import TextFacts, TextPart

NAME = "text"
NEEDS = f"give data: a file ({text_files.KINDS}), or a folder with train and test files"


class OwnTextOptions(TextOptions):
    """Options of `text`."""

    text: str | None = Field(default=None, description="column of the text (default: by its usual names)")
    second: str | None = Field(default=None, description="column of the second text of a pair")
    label: str | None = Field(default=None, description="column of the class or score (default: label)")
    labels: tuple[str, ...] | None = Field(
        default=None,
        description="names of the classes in the order of their numbers (default: those found, sorted)",
    )
    rename: bool = Field(
        default=True,
        exclude=True,  # of an evaluation, and no part of a recipe that is saved
        description="labels may call the classes otherwise than a Parquet or Arrow file that names them",
    )
    score: bool = Field(default=False, description="the label is a number to predict, not a class")
    header: tuple[str, ...] | None = Field(
        default=None, description="names of the columns of a TSV or CSV file without a first line of names"
    )
    files: dict[Literal["train", "validation", "test"], str] = Field(
        default_factory=dict, description="the parts' files in the folder (default: by their names)"
    )
    test: Count = Field(default=0.1, description="texts cut from the data where it has no test part")


def open_own_text(data: Path | None, options: OwnTextOptions) -> Task:
    """Make the task of a file, or of a folder's parts.

    Where there are two parts, whatever the second is called, it is the one that is reported.

    Raises:
        DataError: there is no data, a file or a line of it is broken, a column is missing, a label is unknown, a
            text is empty.
        RecipeError: options do not go together.
    """
    if data is None:
        raise DataError(f"task '{NAME}': no data was given; {NEEDS}")
    if options.score and options.labels is not None:
        raise RecipeError("labels name classes, and score: true asks for numbers; leave out one of them")
    _require_names(options.labels)
    tables, columns = _tables(_files(data, options), options)
    texts = {part: _texts(table, columns.text) for part, table in tables.items()}
    pairs = {part: _second(table, columns) for part, table in tables.items()}
    labels, names = _labels(tables, columns, options)
    parts = {
        part: TextPart(texts[part], pairs[part], labels[part], table.where, table.line)
        for part, table in tables.items()
    }
    metrics = score_metrics() if names is None else class_metrics(len(names))
    facts = TextFacts(NAME, str(data), names, metrics)
    return assemble_text(parts, facts, options, test=0 if "test" in parts else options.test)


def _require_names(labels: Sequence[str] | None) -> None:
    if labels is None:
        return
    if not labels:
        raise RecipeError("labels: no class is named; name each one, or leave it out")
    for place, name in enumerate(labels):
        if name in labels[:place]:
            raise RecipeError(
                f"labels: '{name}' stands twice; name each class once, in the order of their numbers"
            )


def _files(data: Path, options: OwnTextOptions) -> dict[str, list[Path]]:
    """The files of each part, in the order train, validation, test."""
    if options.files:
        folder = data if data.is_dir() else data.parent
        given: dict[str, Path] = {part: folder / name for part, name in options.files.items()}
        missing = [file for file in given.values() if not file.is_file()]
        if missing:
            raise DataError(f"task '{NAME}': {missing[0]}: no such file; mend the option 'files'")
        found = {part: [text_files.checked(given[part])] for part in text_files.PARTS if part in given}
    else:
        found = text_files.find(data)
    if not found:
        raise DataError(
            f"task '{NAME}': {data} holds no file of a part, such as train.csv, validation.csv or test.csv; {NEEDS}, "
            f"or name them with the option 'files'"
        )
    if "validation" in found and "test" not in found:
        found["test"] = found.pop("validation")
    return found


def _tables(found: dict[str, list[Path]], options: OwnTextOptions) -> tuple[dict[str, TextTable], Columns]:
    """The parts' tables, all of the columns of the first."""
    first = next(iter(found.values()))[0]
    columns = columns_of(
        text_files.names(first, options.header),
        str(first),
        text=options.text,
        second=options.second,
        label=options.label,
        score=options.score,
    )
    names = list(dict.fromkeys(columns.names))
    return {part: text_files.read(files, names, options.header) for part, files in found.items()}, columns


def _names(table: TextTable, columns: Columns, options: OwnTextOptions) -> tuple[str, ...] | None:
    """What the numbers in a label column are called, where the file tells it; `labels` can call them otherwise."""
    names, told = table.classes.get(columns.label), options.labels
    if (
        names is None
        or told is None
        or not options.rename
        or set(names) <= set(told)
        or len(told) != len(names)
    ):
        return names
    return told


def _label(table: TextTable, columns: Columns, names: tuple[str, ...] | None) -> list[Any]:
    """The labels as they are written; numbers that have `names` are those names, others are no label."""
    values = table.columns[columns.label]
    if names is None:
        return values
    return [names[value] if type(value) is int and 0 <= value < len(names) else None for value in values]


def _labels(
    tables: dict[str, TextTable], columns: Columns, options: OwnTextOptions
) -> tuple[dict[str, NDArray[Any]], tuple[str, ...] | None]:
    """The labels of each part, and the names of the classes; None: scores."""
    if options.score:
        found = {part: scores(table.columns[columns.label], table.line) for part, table in tables.items()}
        return found, None
    called = {part: _names(table, columns, options) for part, table in tables.items()}
    written = {part: _label(table, columns, called[part]) for part, table in tables.items()}
    first = next(iter(tables))
    classes = Classes.of(written[first], tables[first].line, options.labels or called[first])
    return {part: classes.numbers(written[part], table.line) for part, table in tables.items()}, classes.names


def _second(table: TextTable, columns: Columns) -> Sequence[str] | None:
    return None if columns.second is None else _texts(table, columns.second)


def _texts(table: TextTable, column: str) -> Sequence[str]:
    """A column of texts; raises `DataError` for the first value that is none."""
    values = table.columns[column]
    for row, value in enumerate(values):
        if not isinstance(value, str):
            what = "missing" if value is None else f"a {type(value).__name__}, {value!r:.40}"
            raise DataError(f"{table.line(row)}: '{column}' is {what}; a text is expected")
    try:
        "".join(values).encode()
    except UnicodeEncodeError:  # JSON can write half a sign, \ud83d
        row = next(
            row for row, value in enumerate(values) if any("\ud800" <= sign <= "\udfff" for sign in value)
        )
        raise DataError(f"{table.line(row)}: '{column}' holds half a Unicode sign; mend the line") from None
    return values
