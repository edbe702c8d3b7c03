"""A small task with the interface that the loop uses, on tensors in memory."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class FakeBatch:
    inputs: Any
    labels: Tensor
    ids: Tensor
    total: int
    counts: bool = True


def top1(outputs: Tensor, labels: Tensor) -> float:
    return float((outputs.argmax(1) == labels).double().mean())


@dataclass
class FakeTask:
    """Blobs of `classes` classes, as vectors or as images."""

    samples: int = 50
    shape: tuple[int, ...] = (6,)
    classes: int = 3
    validation: int = 20
    noise: float = 1.0
    name: str = "fake"
    metric: str = "top1"
    loss: Any = field(default_factory=nn.CrossEntropyLoss)
    metrics: dict[str, Any] = field(default_factory=lambda: {"top1": top1})
    poison: int | None = None
    scores: bool = False
    preprocess: Any = None

    def __post_init__(self) -> None:
        self.parts = {"train": self._part(self.samples, 1), "validation": self._part(self.validation, 2)}
        if self.poison is not None:
            self.parts["train"][0][self.poison] = float("nan")
        self.example_inputs = self.parts["train"][0][:1]

    def _part(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        centres = torch.randn(self.classes, *self.shape, generator=torch.Generator().manual_seed(0))
        labels = torch.randint(self.classes, (count,), generator=generator)
        return centres[labels] + self.noise * torch.randn(count, *self.shape, generator=generator), labels

    def focus(self, model: Any, labels: Any) -> Any:
        return contextlib.nullcontext()

    def condense(self, outputs: Any, labels: Any) -> tuple[Any, Any]:
        return outputs, labels

    def has(self, split: str) -> bool:
        return split in self.parts and len(self.parts[split][1]) > 0

    def size(self, split: str) -> int:
        return len(self.parts[split][1])

    def steps(self, split: str, batch_size: int) -> int:
        return -(-self.size(split) // batch_size)

    def fingerprint(self) -> str:
        return hashlib.sha256(self.parts["train"][0].numpy().tobytes()).hexdigest()[:16]

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        epoch: int | None = None,
        seed: int = 0,
        augment: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[FakeBatch]:
        inputs, labels = self.parts[split]
        order = torch.arange(len(labels))
        if epoch is not None:
            generator = torch.Generator().manual_seed(seed * 1000 + epoch)
            order = torch.randperm(len(labels), generator=generator)
        for whole in order.split(batch_size):
            ids = whole.tensor_split(world)[rank]
            batch = inputs[ids]
            if augment and epoch is not None and len(ids):
                batch = batch + 0.1 * torch.stack([self._jitter(seed, epoch, int(item)) for item in ids])
            yield FakeBatch(batch, labels[ids], ids, len(whole))

    def _jitter(self, seed: int, epoch: int, identity: int) -> Tensor:
        generator = torch.Generator().manual_seed((seed * 1000 + epoch) * 100_000 + identity)
        return torch.randn(self.shape, generator=generator)
