"""The nearest words in a table of word vectors (GloVe), by cosine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lianzhi.models.text.vectors import WordVectors
from lianzhi.tasks import cache, hashing
from lianzhi.tasks.waiting import tracked

VERSION = 1
AT_ONCE = 64  # words: their cosines with 400,000 others take 100 MB
NONE = -1


def neighbours(
    words: Sequence[str], vectors: WordVectors, count: int, *, progress: bool = False
) -> dict[str, list[str]]:
    """The `count` nearest words of each word, the word itself and what is not letters left out.

    >>> table = np.asarray([[1, 0], [1, 0.1], [0, 1], [1, 0.05]], np.float32)
    >>> found = WordVectors(("good", "fine", "bad", "1.5"), table, "tiny")
    >>> neighbours(["Good", "unknown"], found, 2)
    {'Good': ['fine', 'bad'], 'unknown': []}

    A word is looked up as it is, then in small letters. Its row is a product of the matrix of unit vectors, and is
    kept in the cache by words, vectors and `count`.
    """
    rows = [vectors.places.get(word, vectors.places.get(word.lower(), NONE)) for word in words]
    known = np.asarray(sorted({row for row in rows if row != NONE}), np.int64)
    hashed = hashing.digest("\0".join(vectors.words), np.ascontiguousarray(vectors.matrix).tobytes())
    key = hashing.digest(str(VERSION), hashed, str(count), known.tobytes())
    table = cache.array(f"neighbours-{key}", lambda: _nearest(known, vectors, count, progress))
    places = {int(row): place for place, row in enumerate(known)}
    made = {}
    for word, row in zip(words, rows, strict=True):
        chosen = [] if row == NONE else table[places[row]].tolist()
        made[word] = [vectors.words[other] for other in chosen if other != NONE]
    return made


def _nearest(rows: NDArray[np.int64], vectors: WordVectors, count: int, progress: bool) -> NDArray[np.int32]:
    """Rows of the nearest words by rank, -1 where there are no more: (words, count)."""
    table = np.full((len(rows), count), NONE, np.int32)
    usable = np.asarray([place for place, word in enumerate(vectors.words) if word.isalpha()], np.int64)
    lengths = np.linalg.norm(np.asarray(vectors.matrix, np.float32), axis=1)
    usable = usable[np.isfinite(lengths[usable]) & (lengths[usable] > 0)]
    if not len(usable):
        return table
    units = torch.from_numpy(vectors.matrix[usable] / lengths[usable, None]).float()
    for start in tracked(range(0, len(rows), AT_ONCE), "nearest words", shown=progress):
        part = rows[start : start + AT_ONCE]
        own = torch.from_numpy(np.asarray(vectors.matrix[part], np.float32))
        cosines = torch.nn.functional.normalize(own, dim=1) @ units.T
        cosines[torch.from_numpy(part)[:, None] == torch.from_numpy(usable)[None]] = -torch.inf
        best = cosines.topk(min(count, cosines.shape[1]), dim=1)
        chosen = torch.where(best.values.isfinite(), torch.from_numpy(usable)[best.indices], NONE)
        table[start : start + len(part), : chosen.shape[1]] = chosen.numpy()
    return table
