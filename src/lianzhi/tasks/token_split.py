"""A split of tokenized texts: batches padded to their longest, and, in training, made of texts of like length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from lianzhi.tasks import hashing
from lianzhi.tasks.batch import Batch, Inputs, share
from lianzhi.tasks.split import Split
from lianzhi.tasks.text_preprocess import TextPreprocess
from lianzhi.tasks.tokens import Tokens

POOL = 50  # batches that are sorted by length together


class TokenSplit(Split):
    """Chosen rows of tokenized texts; a text's id is its place in the split."""

    def __init__(
        self,
        tokens: Tokens,
        rows: NDArray[np.int64],
        labels: NDArray[np.int64],
        preprocess: TextPreprocess,
        *,
        bucket: bool = False,
    ) -> None:
        self.tokens, self.rows, self.labels = tokens, rows, labels
        self.preprocess, self.bucket = preprocess, bucket

    @property
    def size(self) -> int:
        return len(self.rows)

    def steps(self, batch_size: int) -> int:
        return -(-self.size // batch_size)

    def batches(
        self, batch_size: int, *, epoch: int | None, seed: int, augment: bool, rank: int, world: int
    ) -> Iterator[Batch]:
        for everyone in self._order(batch_size, epoch, seed):
            ids = everyone[share(len(everyone), rank, world)]
            yield Batch(
                self._inputs(ids), torch.from_numpy(self.labels[ids]), torch.from_numpy(ids), len(everyone)
            )

    def _order(self, batch_size: int, epoch: int | None, seed: int) -> list[NDArray[np.int64]]:
        """The ids of each batch, a function of (seed, epoch) alone."""
        order = np.arange(self.size)
        if epoch is not None:
            order = hashing.permutation(hashing.key(seed, epoch, "order"), self.size)
        if epoch is None or not self.bucket:
            return [order[start : start + batch_size] for start in range(0, self.size, batch_size)]
        lengths = self.tokens.lengths[self.rows]
        batches: list[NDArray[np.int64]] = []
        for start in range(0, self.size, batch_size * POOL):
            pool = order[start : start + batch_size * POOL]
            pool = pool[np.argsort(lengths[pool], kind="stable")]
            batches += [pool[place : place + batch_size] for place in range(0, len(pool), batch_size)]
        shuffled = hashing.permutation(hashing.key(seed, epoch, "batches"), len(batches))
        return [batches[number] for number in shuffled]

    def _inputs(self, ids: NDArray[np.int64]) -> Inputs:
        rows = self.rows[ids]
        segments = None
        if "token_type_ids" in self.preprocess.inputs and self.tokens.second.any():
            segments = [self.tokens.segments(row) for row in rows]
        arrays = self.preprocess.collate([self.tokens.row(row) for row in rows], segments)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def example(self) -> Inputs:
        """The text of median length."""
        lengths = self.tokens.lengths[self.rows]
        middle = np.argsort(lengths, kind="stable")[(self.size - 1) // 2]
        return self._inputs(np.asarray([middle]))

    def digest(self) -> str:
        chosen = hashing.digest(self.rows.tobytes(), self.labels.tobytes())
        return f"{self.tokens.digest}:{chosen}:{self.bucket}"
