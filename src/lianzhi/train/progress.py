"""The progress bar of a training run, on stderr: loss, metric, learning rate, samples a second.

Where stderr is not a terminal there is one line an epoch, and one every 20 seconds within it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from lianzhi.train.history import History
from lianzhi.train.totals import Totals

REDRAW, PLAIN = 0.2, 20.0


class Bar:
    """A bar over all steps of a run. Every method is free of cost when `shown` is false."""

    def __init__(self, title: str, total: int, epoch_steps: int, metric: str, *, shown: bool) -> None:
        self.title, self.total, self.metric = title, total, metric
        self.epochs = math.ceil(total / epoch_steps)
        self.shown = shown
        self._progress: Any = None
        self._console: Any = None
        self._next = 0.0
        self._rate: tuple[float, int] | None = None
        self._best = ""

    def __enter__(self) -> Bar:
        if not self.shown:
            return self
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True)
        self._next = 0.0 if self._console.is_terminal else time.monotonic() + PLAIN
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed}/{task.total} {task.fields[note]}"),
                TimeRemainingColumn(compact=True),
            )
            self._progress = Progress(*columns, console=self._console, transient=True)
            self._progress.start()
            self._progress.add_task(self.title, total=self.total, note="")
        return self

    def __exit__(self, *error: Any) -> None:
        if self._progress is not None:
            self._progress.stop()

    def step(self, step: int, samples: int, totals: Totals, lr: float) -> None:
        """Show where the run is: redrawn a few times a second at most, a line now and then in a log."""
        if self._console is None:
            return
        now = time.monotonic()
        start, seen = self._rate or (now, 0)
        self._rate = (start, seen + samples)
        if now < self._next:
            return
        self._next = now + (REDRAW if self._progress is not None else PLAIN)
        rate = f" {(seen + samples) / (now - start):.0f}/s" if now > start else ""
        terms = " ".join(f"{name} {value:.4g}" for name, value in totals.means().items())
        note = f"{terms}{self._best} lr {lr:.2g}{rate}"
        if self._progress is not None:
            self._progress.update(0, completed=step, note=note)
        else:
            self._print(f"{self.title} step {step}/{self.total} {note}")

    def pause(self) -> None:
        """Forget the time until the next step: it is not training."""
        self._rate = None
        self._next = max(self._next, time.monotonic() + (0.0 if self._progress is not None else PLAIN))

    def epoch(self, entry: Mapping[str, Any], history: History, samples: int) -> None:
        """Print a finished epoch."""
        if self._console is None:
            return
        parts = [f"{self.title} {entry['epoch']}/{self.epochs}", f"loss {entry['loss']:.4f}"]
        parts += [f"{name} {value:.4g}" for name, value in entry["terms"].items()]
        if entry["metric"] is not None:
            parts.append(f"{self.metric} {entry['metric']:.4f}")
            self._best = f" {self.metric} {entry['metric']:.4f} (best {history.best_value or 0:.4f})"
        parts.append(f"lr {entry['lr']:.2g}")
        parts.append(f"{samples / max(entry['seconds'], 1e-9):.0f} samples/s")
        self._print(" · ".join(parts))

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
