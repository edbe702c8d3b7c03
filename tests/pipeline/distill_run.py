"""A run with two distillations, by one process or under torchrun; killed in a file operation, if it is told to be.

python distill_run.py FOLDER CACHE KILL_AT: the kill is at the n-th file that this process makes final; 0: never.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

import lianzhi as lz
from lianzhi.processes import process

FAST: dict[str, Any] = {"epochs": 2, "batch_size": 32, "lr": 0.01, "augment": False}


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(width, width), nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.dropout(torch.relu(self.linear(x)))


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(192, 12), nn.Linear(12, 4)
        self.blocks = nn.ModuleList(Block(12) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x.flatten(1))
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def deadly(left: int) -> None:
    """Let this process be killed in place of the n-th rename of a file."""
    real, count = os.replace, [0]

    def replace(*args: Any, **options: Any) -> None:
        count[0] += 1
        if count[0] == left:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*args, **options)

    os.replace = replace  # type: ignore[assignment]


def main(folder: Path, cache: bool, kill_at: int) -> None:
    torch.set_num_threads(1)
    deadly(kill_at)
    torch.manual_seed(0)
    model, task = Deep(), lz.task("synthetic", samples=250, classes=4, shape=(3, 8, 8))
    steps = [
        lz.Train(**{**FAST, "epochs": 1}),
        lz.Distill(student={"layers": 2}, cache=cache, top_k=3 if cache else None, **FAST),
        lz.Prune(ratio=0.3),
        lz.Distill(method="dkd", cache=cache, **FAST),
    ]
    measure = lz.Measure(batches=(1,), repeats=1, threads=1)
    result = lz.compress(
        model, task, steps, output=folder, resume=True, target="pytorch", measure=measure, progress=False
    )
    torch.save(result.model.state_dict(), folder.with_name(f"{folder.name}-{process()[0]}.pt"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "cache", int(sys.argv[3]))
