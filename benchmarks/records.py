"""Results of a benchmark as one JSON file: a record a finished run, and of each its command, versions and processor.

A run is known by its key; one that is on record is not done again, so that a benchmark that was stopped goes on.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lianzhi import files, measure

RESULTS = Path(__file__).parent / "results"
TRIALS = Path("out/trial")


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

    def environment(self, key: str) -> dict[str, Any]:
        """Where a run was timed last; of a file that does not say it for each run, where its last one was."""
        made = self.data.get("made", {}).get(key)
        made = made and made.get("timed", made)
        return self.data["environment"] if made is None else self.data["environments"][made["environment"]]

    def add(self, key: str, record: dict[str, Any]) -> None:
        """Keep the record of one run, and those that another process has added meanwhile."""
        self._locked(key, record, timing=False)

    def time(self, key: str, record: dict[str, Any]) -> None:
        """The record of a run of before with other times: what made it stays on record, beside what timed it."""
        self._locked(key, record, timing=True)

    def _locked(self, key: str, record: dict[str, Any], timing: bool) -> None:
        files.make_folder(self.file.parent)
        folder = os.open(self.file.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            self._write(key, record, timing)
        finally:
            os.close(folder)

    def _write(self, key: str, record: dict[str, Any], timing: bool) -> None:
        if self.file.is_file():
            self.data = json.loads(self.file.read_text())
        data, command, environment = self.data, f"python {shlex.join(sys.argv)}", measure.environment()
        if "made" not in data:  # what an older file says of its last run stands for all of them
            data["environments"] = [data["environment"]] if data["runs"] else []
            data["made"] = {old: {"command": data["command"], "environment": 0} for old in data["runs"]}
        if environment not in data["environments"]:
            data["environments"].append(environment)
        data["runs"][key] = record
        now = {"command": command, "environment": data["environments"].index(environment)}
        data["made"][key] = {**data["made"][key], "timed": now} if timing else now
        data["command"], data["environment"] = command, environment
        files.write_text(self.file, json.dumps(data, indent=1) + "\n")


def trial_options(parser: argparse.ArgumentParser, small: str) -> None:
    """`--trial`, which `small` describes, and `--results`: of every benchmark that the model zoo shows."""
    parser.add_argument("--trial", action="store_true", help=f"to see that all runs: {small}")
    parser.add_argument(
        "--results",
        type=Path,
        help="folder of the JSON file (default: benchmarks/results, of a trial out/trial/results)",
    )


def records_of(name: str, given: argparse.Namespace) -> Records:
    """The records that these options say: a trial's never come among the others."""
    return Records(name, folder=given.results or (TRIALS / "results" if given.trial else RESULTS))


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation in points, of several runs.

    >>> spread([0.9, 0.92]), spread([0.9])
    ('91.00 ± 1.41', '90.00')
    """
    deviation = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{deviation}"
