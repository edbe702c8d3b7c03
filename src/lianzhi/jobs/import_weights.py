"""From a checkpoint of another framework to one `.safetensors` file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lianzhi import files
from lianzhi.errors import ArtifactError
from lianzhi.jobs.outputs import require_free
from lianzhi.models.checkpoints.opening import open_checkpoint

Report = Callable[[str, int, int], None]
WEIGHTS = ".safetensors"
SHOWN = 4
MOST_GROWTH = 64  # a layer that stands under so many names is a model; more is a file made to fill the disk


@dataclass(frozen=True)
class Imported:
    """What was written: `renamed` has the names in the checkpoint by those in the file, `left_out` the reasons by name."""

    source: str
    kind: str
    path: str
    tensors: int
    parameters: int
    bytes: int
    renamed: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {**vars(self), "notes": list(self.notes)}

    def text(self, *, whole: bool = False) -> str:
        """A summary; `whole` with every name."""
        lines = [
            f"{self.path}: {self.tensors:,} tensors, {self.parameters:,} values, {self.bytes:,} bytes, from a "
            f"{self.kind} checkpoint"
        ]
        if self.renamed:
            lines.append(f"renamed: {len(self.renamed):,}")
            lines += _some((f"{old} -> {new}" for new, old in self.renamed.items()), len(self.renamed), whole)
        if self.left_out:
            lines.append(f"left out: {len(self.left_out):,}")
            lines += (
                [f"  {name}: {reason}" for name, reason in self.left_out.items()]
                if whole
                else self._reasons()
            )
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _reasons(self) -> list[str]:
        """Each reason once, with how many names have it, and one of them."""
        kinds = {name: reason.partition(" for ")[0] for name, reason in self.left_out.items()}
        first = {kind: name for name, kind in reversed(kinds.items())}
        return [f"  {count:,} {kind} ({first[kind]})" for kind, count in Counter(kinds.values()).items()]

    def __str__(self) -> str:
        return self.text()


def _some(lines: Iterable[str], count: int, whole: bool) -> list[str]:
    shown = [f"  {line}" for position, line in enumerate(lines) if whole or position < SHOWN]
    return shown if whole or count <= SHOWN else [*shown, f"  … and {count - SHOWN:,} more (--verbose)"]


def import_weights(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    kind: str | None = None,
    heads: int | None = None,
    force: bool = False,
    report: Report | None = None,
) -> Imported:
    """Write the weights of a checkpoint of OneFlow, PyTorch or TensorFlow to the file `output`, whole or not at all.

    `kind` is `oneflow`, `pytorch` or `tensorflow`; without it is found from what lies there. A BERT's tensors get the names
    of transformers; `heads` is its number of attention heads, where the checkpoint has query, key and value in one.

    Raises:
        RecipeError: there is no such kind, or `output` does not end in `.safetensors`.
        ArtifactError: the checkpoint is none, damaged or hostile, or the output exists, unless `force`; nothing is written.
    """
    path = require_free(os.fspath(output), WEIGHTS, force=force)
    step = report or (lambda name, done, total: None)
    step("reading", 0, 2)
    found = open_checkpoint(source, kind, heads=heads)
    _check_growth(source, found.tensors.values())
    step("writing", 1, 2)
    files.write_tensors(path, found.tensors)
    step("done", 2, 2)
    return Imported(
        source=os.fspath(source),
        kind=found.kind,
        path=os.fspath(output),
        tensors=len(found.tensors),
        parameters=sum(tensor.numel() for tensor in found.tensors.values()),
        bytes=Path(path).stat().st_size,
        renamed=found.sources,
        left_out=found.left_out,
        notes=found.notes,
    )


def _check_growth(source: str | os.PathLike[str], tensors: Iterable[Tensor]) -> None:
    """Values that stand under many names are written for each: what would be far larger than they are is refused."""
    held, written = {}, 0
    for tensor in tensors:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        written += tensor.numel() * tensor.element_size()
    if written > MOST_GROWTH * sum(held.values()):
        raise ArtifactError(
            f"{os.fspath(source)} has {sum(held.values()):,} bytes of values under so many names or in such shapes that the file "
            f"would have {written:,}; it is damaged, or made to fill the disk"
        )
