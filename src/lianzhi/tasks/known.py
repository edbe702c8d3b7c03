"""Read one of the published image sets from wherever it lies: Parquet, its own format, or the hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from lianzhi.errors import DataError
from lianzhi.tasks import pictures
from lianzhi.tasks._task import Task
from lianzhi.tasks.assemble import Facts, assemble
from lianzhi.tasks.options import SplitOptions
from lianzhi.tasks.part import Part, as_labels
from lianzhi.tasks.pictures import Encoded
from lianzhi.tasks.readers import hub, parquet

Native = Callable[[Path], "dict[str, Part] | None"]


@dataclass(frozen=True)
class Published:
    """A published image set: what is known of it, its columns and its place on the hub.

    `native` reads the set's own format from a folder, or gives None where there is nothing of it.
    """

    facts: Facts
    title: str
    repository: str
    label: str
    native: Native
    native_files: str
    pattern: str = "*.parquet"


def open_published(this: Published, data: Path | None, options: SplitOptions) -> Task:
    """Make the task from the folder, or from the hub where none is given."""
    if data is None:
        try:
            data = hub.fetch(this.repository, this.pattern)
        except DataError as error:
            raise DataError(
                f"task '{this.facts.name}': no data was given, and {error}; give data: a folder with "
                f"{this.native_files}, or with train.parquet and test.parquet as on the hub"
            ) from None
    if not data.is_dir():
        raise DataError(
            f"task '{this.facts.name}': {data}: no such folder; give data: the folder of {this.title}"
        )
    parts, notes = from_parquet(this, data)
    if parts is None:
        parts = this.native(data)
    if parts is None:
        raise DataError(
            f"task '{this.facts.name}': {data} holds no {this.title}: neither train*.parquet and test*.parquet, "
            f"nor {this.native_files}"
        )
    return assemble(parts, replace(this.facts, source=str(data), notes=(*this.facts.notes, *notes)), options)


def from_parquet(this: Published, folder: Path) -> tuple[dict[str, Part] | None, tuple[str, ...]]:
    """The parts from Parquet files as the hub has them, if they are there."""
    files = {name: parquet.find(folder, name) for name in ("train", "test")}
    if not any(files.values()):
        return None, ()
    for name, found in files.items():
        if not found:
            raise DataError(
                f"{folder}: no {name}*.parquet beside the other part; {this.title} has train and test"
            )
    parts: dict[str, Part] = {}
    notes: tuple[str, ...] = ()
    for name, found in files.items():
        table = parquet.read(found, label=this.label)
        parts[name] = part_of(table, this.facts)
        if table.jpeg:
            notes = (f"{this.title} (JPEG copy)",)
    return parts, notes


def part_of(table: parquet.ImageTable, facts: Facts) -> Part:
    """A part whose images must all be of the set's own size; they are kept in memory."""
    assert facts.size is not None
    where = str(table.files[0])
    images = Encoded(table.encoded, table.where, as_labels(table.labels, where), table.digest, where)
    return pictures.part_of(images, pictures.Frame(facts.size, facts.channels, None, None, exact=True))
