"""The work folder of a run: what a killed run needs to go on with the same result.

``<output>/.work/run.json`` says what is being run; ``step-0``, ``step-1``, … hold each step's training
checkpoints and, once it is done, its weights, its pruning plan and its row. A step is done when its
``row.json`` exists: that file is written last. The folder is removed when the run has finished.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lianzhi import files
from lianzhi.errors import ArtifactError, RecipeError
from lianzhi.files.lock import FolderLock

FORMAT = 1
WORK = ".work"
DONE = ".work.done"
MACHINE = frozenset({"workers"})  # keys that say how much of a machine does the work, and change no result


def difference(old: Any, new: Any, path: str = "") -> str | None:
    """Name the first key in which two recipes differ, or None.

    >>> difference({"steps": [{"prune": {"ratio": 0.5}}]}, {"steps": [{"prune": {"ratio": 0.6}}]})
    'steps.0.prune.ratio (0.5 before, 0.6 now)'

    What is of the `MACHINE` may differ: a run may go on with other threads, or on another machine.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if key in MACHINE:
                continue
            found = difference(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
            if found:
                return found
        return None
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return f"{path} ({len(old)} entries before, {len(new)} now)"
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            found = difference(before, after, f"{path}.{index}")
            if found:
                return found
        return None
    return None if old == new else f"{path} ({old!r} before, {new!r} now)"


class Store:
    """The output folder of one run and its work folder."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.work = output / WORK
        self.lock = FolderLock()

    def check(self, *, resume: bool, force: bool) -> None:
        """Refuse an output folder that holds something else. Writes nothing."""
        begun = (self.work / "run.json").is_file()
        if self.output.exists() and not self.output.is_dir():
            files.require_empty(self.output)  # says that it is a file
        if resume:
            known = begun or self.finished()
            if not known and not force and self._holds_more():
                raise ArtifactError(f"{self.output}: nothing to resume here, and the folder is not empty")
        elif not force:
            if begun:
                raise ArtifactError(
                    f"{self.output}: the folder is not empty: it holds a run that was stopped; nothing was written. "
                    f"Go on with it (--resume), give another folder, or start again (--force)"
                )
            files.require_empty(self.output)

    def _holds_more(self) -> bool:
        """Whether the output folder holds more than a work folder, whose run may not have begun when it was killed."""
        return self.output.exists() and any(item.name != WORK for item in self.output.iterdir())

    def begin(self, record: dict[str, Any], *, resume: bool) -> bool:
        """Make the work folder, or compare it with `record`. True if a run is being continued."""
        file = self.work / "run.json"
        if self.work.is_dir():
            self.lock.take(self.work)
        if resume and file.is_file():
            before = files.read_json(file)
            if not isinstance(before, dict):
                raise ArtifactError(f"{file}: damaged; start again in another folder")
            self.require_same(before, {"format": FORMAT, **record})
            return True
        if self.work.exists():
            shutil.rmtree(self.work)
        self.lock.release()  # its file is gone
        files.make_folder(self.work)
        self.lock.take(self.work)
        files.write_json(file, {"format": FORMAT, **record})
        return False

    def require_same(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        """Refuse to go on with a run that was started otherwise, naming the key."""
        found = difference(before, json.loads(json.dumps(now)))
        if found:
            raise RecipeError(
                f"{self.output}: --resume needs the run as it was started, and this differs: {found}; "
                f"start a new run in another folder, or undo the change"
            )

    def finished(self) -> bool:
        """True if the folder holds a finished run's report and no work folder."""
        return (self.output / "report.json").is_file() and not self.work.exists()

    def step(self, index: int) -> Path:
        """The folder of one step."""
        return files.make_folder(self.work / f"step-{index}")

    def row(self, name: str) -> dict[str, Any] | None:
        """The row that was saved under `name`, if the step is done."""
        file = self.work / name / "row.json"
        return files.read_json(file) if file.is_file() else None

    def save_row(self, name: str, row: dict[str, Any]) -> None:
        """Write a row: the mark that this step is done. A metric that is no number is null."""
        files.make_folder(self.work / name)
        files.write_json(self.work / name / "row.json", files.finite(row))

    def save_state(self, name: str, model: nn.Module) -> None:
        """Write the model's tensors."""
        files.write_tensors(self.work / f"{name}.safetensors", _untied(model.state_dict()))

    def load_state(self, name: str, model: nn.Module) -> None:
        """Read the model's tensors back."""
        model.load_state_dict(files.read_tensors(self.work / f"{name}.safetensors"))

    def clean(self) -> None:
        """Remove the work folder: the run has finished.

        It is renamed first, so that a process killed meanwhile leaves no half of one to go on from.
        """
        done = self.output / DONE
        shutil.rmtree(done, ignore_errors=True)
        os.replace(self.work, done)
        shutil.rmtree(done, ignore_errors=True)


def _untied(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give every name storage of its own, as safetensors demands."""
    seen: set[int] = set()
    result = {}
    for name, tensor in state.items():
        pointer = tensor.untyped_storage().data_ptr()
        result[name] = tensor.detach().clone() if pointer in seen else tensor.detach().contiguous()
        seen.add(pointer)
    return result
