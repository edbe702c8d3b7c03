"""Results of a benchmark as one JSON file: the command, versions, processor, and a record a finished run.

A run is known by its key; one that is on record is not done again, so that a benchmark that was stopped goes on.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from pathlib import Path
from typing import Any

from lianzhi import files, measure

RESULTS = Path(__file__).parent / "results"


class Records:
    """The records of one benchmark, in ``benchmarks/results/<name>.json``; the file is whole at any time."""

    def __init__(self, name: str, *, folder: Path = RESULTS) -> None:
        self.file = folder / f"{name}.json"
        self.data: dict[str, Any] = json.loads(self.file.read_text()) if self.file.is_file() else {"runs": {}}

    def __contains__(self, key: str) -> bool:
        return key in self.data["runs"]

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self.data["runs"][key]

    def __len__(self) -> int:
        return len(self.data["runs"])

    def items(self) -> list[tuple[str, dict[str, Any]]]:
        """Keys and records, in the order in which they were made."""
        return list(self.data["runs"].items())

    def add(self, key: str, record: dict[str, Any]) -> None:
        """Keep the record of one run, and those that another process has added meanwhile."""
        files.make_folder(self.file.parent)
        folder = os.open(self.file.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            self._write(key, record)
        finally:
            os.close(folder)

    def _write(self, key: str, record: dict[str, Any]) -> None:
        if self.file.is_file():
            self.data = json.loads(self.file.read_text())
        self.data["runs"][key] = record
        self.data["command"] = f"python {' '.join(sys.argv)}"
        self.data["environment"] = measure.environment()
        files.write_text(self.file, json.dumps(self.data, indent=1) + "\n")
