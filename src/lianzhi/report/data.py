"""The report as data: validated when read, the same text when written.

`report.json` has the keys `rows`, `recipe`, `environment`, `layers`, `decision`, `notes`, `task` and
`artifact`; others are kept as they are. A row is the original model (always the first) or a step.
Rows stay plain dicts, as in the file; a key that a row lacks is None, a number that is not finite too.
"""

from __future__ import annotations

import json
import math
import numbers
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, cast

from lianzhi.errors import ArtifactError

MAX_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 64
FORMAT = 1  # of report.json; one that says nothing of its format has this one


class LatencyEntry(TypedDict):
    """One measurement: the median and 90th percentile of a batch, in milliseconds."""

    runtime: str
    precision: str | None
    batch: int | None
    threads: int | None
    median_ms: float | None
    p90_ms: float | None


class Row(TypedDict):
    """The original or a step. `value` and `validation` are shares in 0–1, `nonzero` are the parameters
    that are not zero, where weights were pruned one by one; `bytes` is the file to ship, `macs` are of one sample; `latency_ms`, `latency_p90_ms`, `runtime`, `precision` and `batch` repeat the
    deployed one."""

    step: str
    metric: str
    value: float | None
    metrics: dict[str, float]
    split: str | None
    samples: int | None
    validation: float | None
    parameters: int | None
    nonzero: int | None
    bytes: int | None
    macs: int | None
    memory_mb: float | None
    seconds: float | None
    latency_ms: float | None
    latency_p90_ms: float | None
    runtime: str | None
    precision: str | None
    batch: int | None
    latencies: list[LatencyEntry]
    size_file: str | None
    details: dict[str, Any]


_TEXT = {"metric": "top1", "split": None, "runtime": None, "size_file": None, "precision": None}
_COUNTS = (
    "samples",
    "parameters",
    "nonzero",
    "bytes",
    "macs",
    "memory_mb",
    "seconds",
    "latency_ms",
    "latency_p90_ms",
    "batch",
)
_KEYS = ("rows", "recipe", "environment", "layers", "decision", "notes", "task", "artifact")


@dataclass(frozen=True)
class Report:
    """What a run did and what came of it.

    >>> report = Report.from_json({"rows": [{"step": "original", "value": 0.934, "parameters": 272474}]})
    >>> report.rows[0]["value"], report["rows"][0]["latency_ms"]
    (0.934, None)
    >>> Report.from_json({"rows": [{"step": "original", "value": 93.4}]})
    Traceback (most recent call last):
        ...
    lianzhi.errors.ArtifactError: report: rows[0] (original): value is 93.4; a metric is a share between -1 and 1
    """

    rows: list[Row]
    recipe: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)
    decision: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    task: dict[str, Any] = field(default_factory=dict)
    artifact: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, source: str | os.PathLike[str] | Mapping[str, Any]) -> Report:
        """Read a report from a `report.json`, a folder that holds one, or its dict.

        Raises ArtifactError, naming the file, the row and the key, for anything else.
        """
        if isinstance(source, Mapping):
            return cls.from_dict(source)
        path = Path(source)
        path = path / "report.json" if path.is_dir() else path
        return cls.from_dict(_read(path), where=str(path))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], *, where: str = "report") -> Report:
        """Make a report of what `report.json` holds; `where` names it in errors."""
        plain = _plain(content, where)
        if not isinstance(plain, dict):
            raise ArtifactError(f"{where}: expected an object with 'rows', got a {type(plain).__name__}")
        written = plain.get("format", FORMAT)
        if written != FORMAT:
            raise ArtifactError(
                f"{where}: has format {written!r}, and this version reads {FORMAT}; update lianzhi if it is newer"
            )
        rows = plain.get("rows")
        if rows is None and "quantization" in plain:
            raise ArtifactError(
                f"{where}: is of one quantized ONNX file, which has no steps to show; give the folder of a recipe's run"
            )
        if not isinstance(rows, list) or not rows:
            raise ArtifactError(f"{where}: 'rows' must be a list with at least the original model's row")
        layers = _typed(plain, "layers", list, where)
        return cls(
            rows=[_row(row, f"{where}: rows[{i}]") for i, row in enumerate(rows)],
            recipe=_typed(plain, "recipe", dict, where),
            environment=_typed(plain, "environment", dict, where),
            layers=[_layer(layer, f"{where}: layers[{i}]") for i, layer in enumerate(layers)],
            decision=_typed(plain, "decision", dict, where),
            notes=[str(note) for note in _typed(plain, "notes", list, where)],
            task=_typed(plain, "task", dict, where),
            artifact=_typed(plain, "artifact", dict, where),
            extra={key: value for key, value in plain.items() if key not in ("format", *_KEYS)},
        )

    def __getitem__(self, key: str) -> Any:
        return self.to_dict()[key]

    def to_dict(self) -> dict[str, Any]:
        """The content of `report.json`."""
        return {"format": FORMAT} | {key: getattr(self, key) for key in _KEYS} | self.extra

    def to_json(self) -> str:
        """The text of `report.json`: the same report gives the same bytes."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def table(self) -> str:
        """Two plain-text tables within 100 columns: the steps, and every latency measured."""
        from lianzhi.report.table import text

        return text(self)

    def to_markdown(self) -> str:
        """The same tables, the notes and the recipe as Markdown."""
        from lianzhi.report.markdown import markdown

        return markdown(self)

    def to_html(self) -> str:
        """One self-contained page: no other file, no network."""
        from lianzhi.report.html import page

        return page(self)

    def __str__(self) -> str:
        return self.table()

    def __rich__(self) -> Any:
        from lianzhi.report.table import renderable

        return renderable(self)


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ArtifactError(f"{path}: larger than {MAX_BYTES >> 20} MiB, which no report is")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be read ({error.strerror}); give a report.json or the folder of a finished run"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: not JSON ({error}); it is damaged or not a report") from None


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """Copy to what JSON knows: tuples become lists, paths text, NumPy scalars numbers, NaN None."""
    if depth > MAX_DEPTH:
        raise ArtifactError(f"{where}: nested deeper than {MAX_DEPTH} levels")
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    raise ArtifactError(
        f"{where}: a {type(value).__name__} cannot be written as JSON; make it a number or text"
    )


def _typed(content: dict[str, Any], key: str, kind: type, where: str) -> Any:
    value = content.get(key)
    value = kind() if value is None else value
    if not isinstance(value, kind):
        name = "an object" if kind is dict else "a list"
        raise ArtifactError(f"{where}: '{key}' must be {name}, got a {type(value).__name__}")
    return value


def _row(row: Any, where: str) -> Row:
    if not isinstance(row, dict) or not isinstance(row.get("step"), str):
        raise ArtifactError(f"{where}: a row is an object with a 'step' (its name)")
    where = f"{where} ({row['step']})"
    out: dict[str, Any] = {key: row.get(key) for key in Row.__annotations__}
    for key in ("value", "validation"):
        if out[key] is not None and not -1 <= _number(out[key], key, where) <= 1:
            raise ArtifactError(f"{where}: {key} is {out[key]}; a metric is a share between -1 and 1")
    _check(out, where)
    latencies = _typed(row, "latencies", list, where)
    out["latencies"] = [_latency(entry, f"{where}: latencies[{i}]") for i, entry in enumerate(latencies)]
    out["details"] = _typed(row, "details", dict, where)
    out["metrics"] = _typed(row, "metrics", dict, where)
    return cast(Row, out | {key: value for key, value in row.items() if key not in out})


def _latency(entry: Any, where: str) -> LatencyEntry:
    if not isinstance(entry, dict) or not isinstance(entry.get("runtime"), str):
        raise ArtifactError(f"{where}: a latency is an object with a 'runtime' (its name)")
    out = {key: entry.get(key) for key in LatencyEntry.__annotations__}
    _check(out, where, ("batch", "threads", "median_ms", "p90_ms"))
    return cast(LatencyEntry, out | {key: value for key, value in entry.items() if key not in out})


def _layer(layer: Any, where: str) -> dict[str, Any]:
    if not isinstance(layer, dict) or not isinstance(layer.get("name"), str):
        raise ArtifactError(f"{where}: a layer is an object with a 'name'")
    _check(layer, where, ("before", "after", "macs_before", "macs"))
    return layer


def _check(values: dict[str, Any], where: str, counts: tuple[str, ...] = _COUNTS) -> None:
    """Refuse negative or non-numeric counts and texts that are not text; fill in a text's default."""
    for key in counts:
        if values.get(key) is not None and _number(values[key], key, where) < 0:
            raise ArtifactError(f"{where}: {key} is {values[key]}; it cannot be negative")
    for key, default in _TEXT.items():
        if key in values:
            values[key] = default if values[key] is None else values[key]
            if values[key] is not None and not isinstance(values[key], str):
                raise ArtifactError(f"{where}: {key} must be text, got a {type(values[key]).__name__}")


def _number(value: Any, key: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArtifactError(f"{where}: {key} must be a number, got {value!r}")
    return value
