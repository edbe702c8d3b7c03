"""A short training by `crd`, the same in one process and in two. Run as a script under torchrun, or imported."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_cnn import TinyCNN
from torch import Tensor

import lianzhi as lz
from lianzhi import train
from lianzhi.distill import methods


def learned() -> dict[str, Tensor]:
    """Weights and memory after an epoch whose last batch is uneven."""
    task = lz.task("synthetic", samples=60, classes=4, shape=(3, 8, 8))
    setting = methods.Setting(TinyCNN(6, 10, seed=1), TinyCNN(4, 6, seed=2), task)
    entry = methods.registry.get("crd")
    torch.manual_seed(3)
    (stage,) = entry.build(setting, entry.config(negatives=16, size=8)).stages
    options = train.TrainOptions(epochs=1, batch_size=9, lr=0.01, keep="last")
    train.fit(stage.model, task, options, step=stage.step, progress=False)
    return {key: value.contiguous() for key, value in stage.model.state_dict().items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, _ = train.start_processes()
    save_file(learned(), Path(sys.argv[1]) / f"{rank}.safetensors")
