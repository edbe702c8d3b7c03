"""A training run with dropout, augmentation and checkpoints every step, to be killed from outside."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from fake import FakeTask
from safetensors.torch import save_file
from torch import nn

from lianzhi import train


def network() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(144, 3),
    )


def options() -> train.TrainOptions:
    return train.TrainOptions(
        epochs=6,
        batch_size=4,
        optimizer="adamw",
        lr=0.01,
        accumulate=2,
        label_smoothing=0.1,
        clip=1.0,
        save_every=1e-9,
    )


def run(folder: Path, *, resume: bool, pause: float = 0.0) -> dict[str, torch.Tensor]:
    """Train to the end; return the final weights."""
    task = FakeTask(samples=42, shape=(2, 6, 6), noise=2.0)
    model = network()
    train.fit(
        model,
        task,
        options(),
        directory=folder,
        resume=resume,
        progress=False,
        after_step=lambda model: time.sleep(pause),
    )
    return dict(model.state_dict())


if __name__ == "__main__":
    torch.set_num_threads(1)
    output = Path(sys.argv[1])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    save_file(run(output / "run", resume=True, pause=0.01), output / "final.safetensors")
