"""What a run returns: the model, the report, and where everything lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from lianzhi.report import Report


@dataclass(frozen=True)
class Result:
    """A finished run.

    `model` is the compressed module (with its quantizers, where it was quantized), `report` the measured
    rows, `path` the artifact folder.
    """

    model: nn.Module
    report: Report
    path: Path

    def table(self) -> str:
        """The report as a printed table."""
        return self.report.table()

    def __str__(self) -> str:
        return f"{self.table()}\n{self.path}"
