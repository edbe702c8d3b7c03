"""A short training by each method on CNNs, the same in one process and in two. Run as a script under torchrun, or imported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_cnn import TinyCNN
from torch import Tensor

import lianzhi as lz
from lianzhi import train
from lianzhi.distill import methods

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "crd": ("crd", {"negatives": 16, "size": 8}),
    "dist": ("dist", {}),
    "dist by its loss": ("logit_loss", {"loss": "dist"}),
    "dkd by its loss": ("logit_loss", {"loss": "dkd"}),
    "rkd": ("rkd", {}),
    "rkd alone": ("rkd", {"hard": 0}),
    "similarity_preserving": ("similarity_preserving", {"weight": 30.0}),
    "pkt": ("pkt", {"weight": 300.0}),
    "review_kd": ("review_kd", {}),
    "fitnet": ("fitnet", {}),
}
SAMPLES = 62  # of which 46 train: batches of 9, and one of 1, which one of two processes has no sample of


def learned(case: str) -> dict[str, Tensor]:
    """Weights, memory and the mean loss after an epoch."""
    name, options = CASES[case]
    task = lz.task("synthetic", samples=SAMPLES, classes=4, shape=(3, 8, 8))
    assert task.size("train") % 9 == 1
    setting = methods.Setting(TinyCNN(6, 10, seed=1), TinyCNN(4, 6, seed=2), task)
    entry = methods.registry.get(name)
    torch.manual_seed(3)
    (stage,) = entry.build(setting, entry.config(**options)).stages
    model = stage.model or setting.student
    training = train.TrainOptions(epochs=1, batch_size=9, lr=0.01, keep="last")
    history = train.fit(model, task, training, step=stage.step, progress=False)
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    return {**weights, "loss": torch.tensor(history.epochs[0]["loss"])}


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, _ = train.start_processes()
    for case in CASES:
        save_file(learned(case), Path(sys.argv[1]) / f"{case}-{rank}.safetensors")
