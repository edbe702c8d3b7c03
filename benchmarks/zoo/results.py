"""What is on record, by the parts of a key, and the machines on which it was made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from records import RESULTS, Records

Run = dict[str, Any]
Machine = tuple[tuple[str, str], ...]
FACTS = ("cpu", "cores", "has_vnni", "has_amx", "has_bf16", "omp_num_threads")
VERSIONS = ("python", "torch", "transformers", "onnxruntime", "openvino", "lianzhi")


@dataclass
class Results:
    """The folder of all records; a file that is not there is an empty one.

    `used` notes which file and runs a table read, so that the page can say on which machines they were made.
    """

    folder: Path = RESULTS
    small: bool = False  # made by trials, which the page then says
    files: dict[str, Records] = field(default_factory=dict)
    used: dict[str, set[str]] = field(default_factory=dict)

    def keys(self, name: str) -> list[tuple[str, ...]]:
        """The keys of a file, each as its parts."""
        return [_parts(key) for key, _ in self._open(name).items()]

    def find(self, name: str, *parts: str) -> list[Run]:
        """The runs whose keys begin with these parts, in the order in which they were made."""
        found = []
        for key, run in self._open(name).items():
            if _parts(key)[: len(parts)] == parts:
                self.used.setdefault(name, set()).add(key)
                found.append(run)
        return found

    def one(self, name: str, *parts: str) -> Run | None:
        """The first of these runs."""
        return next(iter(self.find(name, *parts)), None)

    def machines(self, used: Mapping[str, Iterable[str]]) -> list[Machine]:
        """Where these runs were made, each machine once, the first one first."""
        found: dict[Machine, None] = {}
        for name, keys in used.items():
            records = self._open(name)
            for key in (key for key, _ in records.items() if key in set(keys)):
                found[machine(records.environment(key))] = None
        return list(found)

    def _open(self, name: str) -> Records:
        if name not in self.files:
            self.files[name] = Records(name, folder=self.folder)
        return self.files[name]


def machine(environment: Run) -> Machine:
    """What of an environment a reader has to know, as pairs."""
    return tuple((key, _plain(environment.get(key))) for key in (*FACTS, *VERSIONS))


def _parts(key: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in key.split("|"))


def _plain(value: Any) -> str:
    return "" if value is None else str(value)
