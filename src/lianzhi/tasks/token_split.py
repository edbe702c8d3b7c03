"""A split of tokenized texts: batches padded to their longest, and, in training, made of texts of like length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lianzhi.tasks import hashing
from lianzhi.tasks.batch import Batch, Inputs, share
from lianzhi.tasks.order import batches_of
from lianzhi.tasks.split import Split
from lianzhi.tasks.text_preprocess import TextPreprocess
from lianzhi.tasks.tokens import Tokens


class TokenSplit(Split):
    """Chosen rows of tokenized texts; a text's id is its place in the split."""

    def __init__(
        self,
        tokens: Tokens,
        rows: NDArray[np.int64],
        labels: NDArray[Any],
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
        lengths = self.tokens.lengths[self.rows] if self.bucket else None
        for everyone in batches_of(self.size, batch_size, epoch, seed, lengths=lengths):
            ids = everyone[share(len(everyone), rank, world)]
            yield Batch(
                self._inputs(ids), torch.from_numpy(self.labels[ids]), torch.from_numpy(ids), len(everyone)
            )

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

    def longest(self) -> tuple[int, Inputs]:
        """The longest text, as a batch of one, and how many tokens it has."""
        lengths = self.tokens.lengths[self.rows]
        place = int(np.argmax(lengths))
        return int(lengths[place]), self._inputs(np.asarray([place]))

    def last_token(self) -> tuple[int, Inputs]:
        """The largest number of a token in these texts, and a text that has it, as a batch of one."""
        some = self.tokens.lengths > 0
        largest = np.zeros(len(self.tokens), np.int64)
        largest[some] = np.maximum.reduceat(self.tokens.ids, self.tokens.starts[:-1][some])
        place = int(np.argmax(largest[self.rows]))
        return int(largest[self.rows[place]]), self._inputs(np.asarray([place]))

    def digest(self) -> str:
        chosen = hashing.digest(self.rows.tobytes(), self.labels.tobytes())
        return f"{self.tokens.digest}:{chosen}:{self.bucket}"
