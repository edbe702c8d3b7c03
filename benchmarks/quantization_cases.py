"""The trained models of the quantization benchmark, each with its calibration data and what it is evaluated on."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from quantization_lite0 import images, packaged
from torch import Tensor, nn

import lianzhi as lz
from lianzhi import artifact, files, train

DATA = Path(os.environ.get("LIANZHI_DATA", Path(__file__).parents[2] / "shared" / "data"))
WORK = Path("out/quantization_qat")


@dataclass(frozen=True)
class Case:
    """A model and its data. `calibration` takes a seed; `unit` is what one wrong answer is called."""

    name: str
    model: nn.Module
    task: lz.Task | None
    example: Any
    calibration: Callable[[int], list[Any]]
    evaluation: list[tuple[Any, Tensor]]
    metric: str
    batches: tuple[int, ...]
    classes: int = 2

    @property
    def samples(self) -> int:
        """How many are evaluated."""
        return sum(len(labels) for _, labels in self.evaluation)


def fine_tuned(name: str, task: lz.Task, epochs: float, device: str) -> nn.Module:
    """The float model on this copy of the data, trained once and kept in the work folder."""
    model = lz.model(name, weights=DATA / "cifar10" / f"{name}.safetensors")
    if not epochs:
        return model.eval()
    folder = WORK / name
    file = folder / f"dense-{epochs:g}.safetensors"
    if file.is_file():
        model.load_state_dict(files.read_tensors(file))
        return model.eval()
    options = train.TrainOptions(
        epochs=epochs, lr=0.02, weight_decay=1e-4, precision="auto", keep="last", save_every=60
    )
    train.fit(
        model,
        task,
        options,
        directory=folder / f"dense-{epochs:g}",
        resume=True,
        title="float",
        device=device,
    )
    files.make_folder(folder)
    files.write_tensors(file, model.state_dict())
    return model.eval()


def resnet(name: str, epochs: float = 1, device: str = "cpu", limit: int | None = None) -> Case:
    """ResNet-20 or -56 on CIFAR-10, fine-tuned on this copy of the data; 512 images calibrate."""
    task = lz.task("cifar10", data=DATA / "cifar10", limit=limit)
    model = fine_tuned(name, task, epochs, device)
    return Case(
        name,
        model,
        task,
        task.example_inputs,
        lambda seed: taken(task, 8, 64, seed),
        [(batch.inputs, batch.labels) for batch in task.batches("test", 500)],
        "top-1",
        (1, 64),
        classes=10,
    )


def bert(folder: Path, limit: int | None = None) -> Case:
    """The 6-layer BERT on SST-2: 128 sentences calibrate, the dev set's 872 are evaluated."""
    model = artifact.load(folder)
    task = lz.task("sst2", data=DATA / "glue" / "SST-2", tokenizer=str(folder / "tokenizer"), limit=limit)
    return Case(
        "bert6",
        model.eval(),
        task,
        task.example_inputs,
        lambda seed: taken(task, 16, 8, seed),
        [(batch.inputs, batch.labels) for batch in task.batches("test", 8)],
        "accuracy",
        (1,),
    )


def lite0(limit: int | None = None) -> Case:
    """EfficientNet-Lite0 on the ImageNet sample: rows 0, 5, 10, … calibrate; agreement is what counts."""
    values, labels = images(DATA / "imagenet-sample" / "even.parquet", limit)
    calibrates = torch.arange(len(values)) % 5 == 0
    model = lz.model("efficientnet_lite0", weights=packaged()).eval()
    held = list(values[calibrates].split(25))
    pairs = list(zip(values[~calibrates].split(50), labels[~calibrates].split(50), strict=True))
    return Case("lite0", model, None, values[:1], lambda seed: held, pairs, "top-1", (1,), classes=1000)


def taken(task: lz.Task, count: int, size: int, seed: int) -> list[Any]:
    """`count` batches of the calibration split, other ones for another seed."""
    held = [batch.inputs for batch in task.batches("calibration", size)]
    start = count * seed % max(1, len(held) - count + 1)
    return held[start : start + count]


def make(
    name: str, bert_folder: Path, *, epochs: float = 1, device: str = "cpu", limit: int | None = None
) -> Case:
    """A case by name. A ResNet that is not there yet is trained for so many epochs; `limit` is of samples a split."""
    if name == "bert6":
        return bert(bert_folder, limit)
    return lite0(limit) if name == "lite0" else resnet(name, epochs, device, limit)


NAMES = ("resnet20", "resnet56", "bert6", "lite0")
