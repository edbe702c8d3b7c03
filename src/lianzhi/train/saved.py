"""The two checkpoints of a run: the last one, to go on from, and the best one, to end with.

The last is written first. So if the best one on the disk is not of the epoch that the last one calls best,
the process was killed between the two, and the weights of the last are the best.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lianzhi.errors import ArtifactError, RecipeError, TrainingError
from lianzhi.processes import by_leader, process
from lianzhi.train.checkpoint import (
    Checkpoint,
    load_model,
    load_optimizer,
    model_tensors,
    optimizer_tensors,
    read,
    write,
)
from lianzhi.train.history import History
from lianzhi.train.options import TrainOptions

if TYPE_CHECKING:
    from lianzhi.tasks import Task

LAST, BEST = "last.safetensors", "best.safetensors"


class Saved:
    """Checkpoints in a folder, or, without one, only the best weights in memory. Process 0 reads and writes."""

    def __init__(
        self,
        directory: str | os.PathLike[str] | None,
        options: TrainOptions,
        seed: int,
        task: Task,
        *,
        resume: bool,
    ) -> None:
        self.folder = None if directory is None else Path(directory)
        self.run: dict[str, Any] = {"options": options.to_dict(), "seed": seed, "task": task.fingerprint()}
        self.resume = resume
        self.leads = process()[0] == 0
        self._best: dict[str, Tensor] | None = None
        self._written = time.monotonic()

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Load the last checkpoint into model and optimizer; return its position, or None at the beginning."""
        last, best = by_leader(self._both)
        if last is None:
            return None
        position: dict[str, Any] = last.values["position"]
        load_model(model, last.part("model"), str(self.folder))
        load_optimizer(model, optimizer, last.part("optimizer"))
        wanted = position["history"]["best_epoch"]
        if wanted is not None:
            current = best is not None and best.values["epoch"] == wanted
            self._best = best.part("model") if current and best is not None else last.part("model")
        return position

    def _both(self) -> tuple[Checkpoint | None, Checkpoint | None]:
        """The last checkpoint and the best one, as they are on the disk."""
        if self.folder is None:
            return None, None
        last = read(self.folder / LAST)
        if last is None:
            return None, None
        self._check(last)
        return last, read(self.folder / BEST)

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, position: dict[str, Any]) -> None:
        """Write the last checkpoint, of weights that are all numbers."""
        own = model_tensors(model)
        for name, tensor in own.items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise TrainingError(
                    f"'{name}' has NaN or infinite values after step {position['history']['steps']}; "
                    f"lower the learning rate or clip the gradients (clip: 1.0); {self.kept()}"
                )
        if self.folder is None or not self.leads:
            return
        tensors = {f"model/{name}": tensor for name, tensor in own.items()}
        tensors.update(
            (f"optimizer/{name}", tensor) for name, tensor in optimizer_tensors(model, optimizer).items()
        )
        write(self.folder / LAST, Checkpoint(tensors, {**self.run, "position": position}))
        self._written = time.monotonic()

    def due(self, seconds: float | None) -> bool:
        """Whether the last checkpoint is older than that."""
        return seconds is not None and self.folder is not None and time.monotonic() - self._written > seconds

    def best(self, model: nn.Module, history: History) -> None:
        """Keep the weights as the best so far."""
        self._best = {name: tensor.cpu().clone() for name, tensor in model_tensors(model).items()}
        if self.folder is not None and self.leads:
            tensors = {f"model/{name}": tensor for name, tensor in self._best.items()}
            values = {"epoch": history.best_epoch, "value": history.best_value}
            write(self.folder / BEST, Checkpoint(tensors, values))

    def load_best(self, model: nn.Module, history: History) -> None:
        """Put the best weights into the model, if any epoch was better than others."""
        if self._best is not None and history.best_epoch != len(history.epochs):
            load_model(model, self._best, "best checkpoint")

    def kept(self) -> str:
        """Say what is left of the run."""
        if self.folder is None:
            return "no checkpoint was asked for"
        path = self.folder / LAST
        return (
            f"the last good checkpoint is kept in {path}"
            if path.exists()
            else "no checkpoint was written yet"
        )

    def _check(self, last: Checkpoint) -> None:
        """Refuse to overwrite a run, or to go on with other options than it began with."""
        if not self.resume:
            raise ArtifactError(
                f"{self.folder} holds the checkpoint of an earlier training; resume it, or give another folder"
            )
        for key, now in {**self.run["options"], "seed": self.run["seed"], "task": self.run["task"]}.items():
            before = {**last.values["options"], **last.values}.get(key)
            if before != now:
                raise RecipeError(
                    f"cannot resume {self.folder}: '{key}' was {before!r} when the training began and is "
                    f"{now!r} now; set it back, or train into another folder"
                )
