"""One page of the reports of one run or several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lianzhi import files
from lianzhi.errors import ArtifactError, RecipeError
from lianzhi.jobs.outputs import require_free
from lianzhi.report import Report, Run, page_of_runs, remark_lines

REPORT = "report.json"


def report(sources: Sequence[str | Path], output: str | Path, *, force: bool = False) -> dict[str, Any]:
    """Write the page of some runs, each an artifact folder or its `report.json`; of one run its own page.

    Returns the page's `path`, the `runs` (name, source, and the row of what ships), and `remarks`: what stands in the
    way of comparing them.

    Raises:
        RecipeError: a run is given twice, or the page's name does not end in .html.
        ArtifactError: a run has no report, or a damaged one; or the page is there already, unless `force`.
    """
    page = require_free(output, ".html", force=force)
    found = [_file(source) for source in sources]
    for index, file in enumerate(found):
        first = found.index(file)
        if first < index:
            raise RecipeError(f"{sources[index]}: is the same run as {sources[first]}; give each run once")
    runs = [Run(name, Report.from_json(file)) for name, file in zip(names(found), found, strict=True)]
    files.write_text(page, runs[0].report.to_html() if len(runs) == 1 else page_of_runs(runs))
    return {
        "path": str(page),
        "runs": [
            {"name": run.name, "source": str(source), "row": run.report.rows[-1]}
            for run, source in zip(runs, sources, strict=True)
        ],
        "remarks": remark_lines(runs),
    }


def _file(source: str | Path) -> Path:
    """The report that a RUN argument means, its links followed."""
    path = Path(source)
    if not path.exists():
        raise ArtifactError(f"{source}: no such artifact folder or {REPORT}")
    if path.is_file():
        return path.resolve()
    if not path.is_dir():
        raise ArtifactError(f"{source}: is a pipe or a device; give an artifact folder or its {REPORT}")
    if not (path / REPORT).is_file():
        raise ArtifactError(
            f"{source}: holds no {REPORT}; give the folder of a finished run, or its {REPORT}"
        )
    return (path / REPORT).resolve()


def names(reports: Sequence[Path]) -> list[str]:
    """A name for each report: its folder's, with the folders above it where that is not enough to tell two apart.

    >>> names([Path("/out/half/report.json"), Path("/out/third/report.json"), Path("/old/half/report.json")])
    ['out/half', 'third', 'old/half']
    """
    parts = [file.parent.parts if file.name == REPORT else file.parts for file in reports]
    lengths = [1] * len(parts)
    while True:
        found = ["/".join(part[-length:]) for part, length in zip(parts, lengths, strict=True)]
        counts = Counter(found)
        longer = [
            length + (counts[name] > 1 and length < len(part))
            for name, part, length in zip(found, parts, lengths, strict=True)
        ]
        if longer == lengths:
            return found
        lengths = longer
