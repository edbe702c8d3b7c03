"""A split of a corpus: samples made of its sentences, masked anew each epoch, padded to the longest of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lianzhi.tasks import hashing
from lianzhi.tasks.batch import Batch, Inputs, share
from lianzhi.tasks.corpus.frame import Frame
from lianzhi.tasks.corpus.masking import NOT_ASKED, mask_words
from lianzhi.tasks.corpus.store import Corpus
from lianzhi.tasks.order import batches_of
from lianzhi.tasks.split import Split
from lianzhi.tasks.text_preprocess import TextPreprocess

FOLLOWS, DOES_NOT = 0, 1  # as Hugging Face's heads have them
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Objective:
    """What is asked of each sample. Without `masked` and `next_sentence` nothing is, and the texts are whole."""

    masked: float
    whole_words: bool
    next_sentence: bool


class CorpusSplit(Split):
    """Chosen samples of a corpus; a sample's id is its place in the split.

    Labels are int64 of shape (batch, tokens), -100 where nothing is asked. With the question whether the second text
    follows the first they are a dict of ``tokens`` and ``next``, the latter of shape (batch,), 0 where it does.
    """

    def __init__(
        self,
        corpus: Corpus,
        samples: Ids,
        preprocess: TextPreprocess,
        frame: Frame,
        objective: Objective,
        *,
        bucket: bool = False,
    ) -> None:
        self.corpus, self.samples, self.preprocess, self.frame = corpus, samples, preprocess, frame
        self.objective, self.bucket = objective, bucket
        first, count = samples.T
        self.documents: Ids = np.asarray(corpus.rows[first, 1])
        self.lengths: Ids = np.asarray(corpus.rows[first + count, 0] - corpus.rows[first, 0])

    @property
    def size(self) -> int:
        return len(self.samples)

    def steps(self, batch_size: int) -> int:
        return -(-self.size // batch_size)

    def batches(
        self, batch_size: int, *, epoch: int | None, seed: int, augment: bool, rank: int, world: int
    ) -> Iterator[Batch]:
        lengths = np.minimum(self.lengths, self.preprocess.max_length) if self.bucket else None
        for everyone in batches_of(self.size, batch_size, epoch, seed, lengths=lengths):
            ids = everyone[share(len(everyone), rank, world)]
            inputs, labels = self._read(ids, seed, epoch)
            yield Batch(inputs, labels, torch.from_numpy(ids), len(everyone))

    def _read(self, ids: Ids, seed: int, epoch: int | None) -> tuple[Inputs, Any]:
        """Inputs and labels of some samples. Without an epoch they are masked in one way of their own."""
        when = "once" if epoch is None else epoch
        keys = {name: hashing.key(seed, when, name) for name in ("words", "cut", "next", "other")}
        rows, segments, asked, follows = [], [], [], []
        for sample in ids.tolist():
            if self.objective.next_sentence:
                tokens, own, types, kind = self._pair(sample, keys)
            else:
                tokens, own = self.frame.single(self._text(sample))
                types, kind = np.zeros(len(tokens), np.int64), FOLLOWS
            seen, labels = mask_words(
                tokens,
                own,
                self.frame,
                sample,
                keys["words"],
                share=self.objective.masked,
                whole_words=self.objective.whole_words,
            )
            rows.append(seen)
            segments.append(types)
            asked.append(labels)
            follows.append(kind)
        arrays = self.preprocess.collate(rows, segments)
        inputs = {name: torch.from_numpy(array) for name, array in arrays.items()}
        wanted = torch.full(inputs["input_ids"].shape, NOT_ASKED, dtype=torch.int64)
        for place, labels in enumerate(asked):
            wanted[place, : len(labels)] = torch.from_numpy(labels)
        if not self.objective.next_sentence:
            return inputs, wanted
        return inputs, {"tokens": wanted, "next": torch.tensor(follows, dtype=torch.int64)}

    def _text(self, sample: int) -> Ids:
        first, count = self.samples[sample]
        return self.corpus.tokens(first, count)[: self.preprocess.max_length - self.frame.around]

    def _pair(self, sample: int, keys: dict[str, np.uint64]) -> tuple[Ids, NDArray[np.bool_], Ids, int]:
        """Two texts, the second of which follows the first in half of the cases, and is of another document else."""
        at = np.asarray([sample])
        first, count = self.samples[sample]
        middle = 1 + int(hashing.integers(keys["cut"], at, max(count - 1, 1))[0])
        one = self.corpus.tokens(first, min(middle, count))
        follows = count > 1 and bool(hashing.uniform(keys["next"], at)[0] < 0.5)
        if follows:
            two = self.corpus.tokens(first + middle, count - middle)
        else:
            begin, more = self.samples[self._of_another_document(sample, keys["other"])]
            skipped = more // 2
            two = self.corpus.tokens(begin + skipped, more - skipped)
        one, two = fitted(one, two, self.preprocess.max_length - self.frame.around_two)
        return *self.frame.pair(one, two), FOLLOWS if follows else DOES_NOT

    def _of_another_document(self, sample: int, key: np.uint64) -> int:
        """A sample drawn evenly from those of other documents: samples of a document stand in a row."""
        own = self.documents[sample]
        begin = int(np.searchsorted(self.documents, own, "left"))
        end = int(np.searchsorted(self.documents, own, "right"))
        drawn = int(hashing.integers(key, np.asarray([sample]), self.size - (end - begin))[0])
        return drawn if drawn < begin else drawn + end - begin

    def example(self) -> Inputs:
        """The sample of median length."""
        middle = np.argsort(self.lengths, kind="stable")[(self.size - 1) // 2]
        return self._read(np.asarray([middle]), 0, None)[0]

    def fixed(self, augment: bool) -> bool:
        return not self.objective.masked and not self.objective.next_sentence

    def digest(self) -> str:
        chosen = hashing.digest(self.samples.tobytes())
        return f"{self.corpus.digest}:{chosen}:{self.objective}:{self.bucket}"


def fitted(one: Ids, two: Ids, room: int) -> tuple[Ids, Ids]:
    """Both texts cut at their ends so that they fit into the room together; the longer one is cut first.

    >>> [len(part) for part in fitted(np.zeros(9), np.zeros(3), 8)]
    [5, 3]
    >>> [len(part) for part in fitted(np.zeros(9), np.zeros(8), 5)]
    [3, 2]
    """
    over = len(one) + len(two) - room
    if over <= 0:
        return one, two
    short = min(len(one), len(two), room // 2)
    if len(one) <= len(two):
        return one[:short], two[: room - short]
    return one[: room - short], two[:short]
