"""A split: one part of a task's data, read in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from lianzhi.tasks import hashing
from lianzhi.tasks.augmentation import Augmentation, Draw
from lianzhi.tasks.batch import Batch, Inputs, share
from lianzhi.tasks.preprocess import Preprocess
from lianzhi.tasks.stores import Request, Store


class Split(ABC):
    """What `Task` asks of a part of the data."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many samples there are."""

    @abstractmethod
    def steps(self, batch_size: int) -> int:
        """How many batches one pass has."""

    @abstractmethod
    def batches(
        self, batch_size: int, *, epoch: int | None, seed: int, augment: bool, rank: int, world: int
    ) -> Iterator[Batch]:
        """One pass over the samples. See `Task.batches`."""

    @abstractmethod
    def example(self) -> Inputs:
        """The inputs of one sample, as a batch of one."""

    @abstractmethod
    def digest(self) -> str:
        """A short text that changes when the data changes."""

    def fixed(self, augment: bool) -> bool:
        """Whether a sample, known by its id, is the same in every epoch."""
        return True


class StoredSplit(Split):
    """Chosen rows of a store; a sample's id is its place in the split."""

    def __init__(
        self,
        store: Store,
        rows: NDArray[np.int64],
        labels: NDArray[np.int64],
        *,
        preprocess: Preprocess | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.store, self.rows, self.labels = store, rows, labels
        self.preprocess, self.augmentation = preprocess, augmentation

    @property
    def size(self) -> int:
        return len(self.rows)

    def steps(self, batch_size: int) -> int:
        return -(-self.size // batch_size)

    def batches(
        self, batch_size: int, *, epoch: int | None, seed: int, augment: bool, rank: int, world: int
    ) -> Iterator[Batch]:
        order = np.arange(self.size)
        if epoch is not None:
            order = hashing.permutation(hashing.key(seed, epoch, "order"), self.size)
        draw = None
        if augment and epoch is not None and self.augmentation is not None:
            draw = Draw(self.augmentation, seed, epoch)
        whole = [order[start : start + batch_size] for start in range(0, self.size, batch_size)]
        local = [ids[share(len(ids), rank, world)] for ids in whole]
        requests = (Request(self.rows[ids], ids, draw) for ids in local)
        stream = self.store.stream(requests, self.preprocess)
        for everyone, ids, inputs in zip(whole, local, stream, strict=True):
            labels = torch.from_numpy(self.labels[ids])
            yield Batch(torch.from_numpy(inputs), labels, torch.from_numpy(ids), len(everyone))

    def example(self) -> Inputs:
        first = np.zeros(1, np.int64)
        return torch.from_numpy(
            next(iter(self.store.stream([Request(self.rows[:1], first, None)], self.preprocess)))
        )

    def digest(self) -> str:
        chosen = hashing.digest(self.rows.tobytes(), self.labels.tobytes())
        return f"{self.store.digest()}:{chosen}:{self.preprocess}:{self.augmentation}"

    def fixed(self, augment: bool) -> bool:
        return not augment or self.augmentation is None
