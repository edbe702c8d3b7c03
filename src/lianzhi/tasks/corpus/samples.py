"""Which sentences in a row make a sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lianzhi.tasks.corpus.store import Corpus

AT_ONCE = 1 << 20


def samples(corpus: Corpus, room: int, *, fill: bool, least: int = 1) -> NDArray[np.int64]:
    """(first sentence, number of sentences) of each sample: int64 of shape (samples, 2).

    A sample holds sentences of one document in a row. With `fill` it takes as many as fit into `room` tokens,
    else `least` of them where the document has so many left. Each sentence is in exactly one sample; one that
    is longer than the room is alone in its, and is cut when it is read.

    >>> rows = np.asarray([[0, 0], [4, 0], [7, 0], [20, 1], [22, -1]])
    >>> corpus = Corpus(np.zeros(22, np.int32), rows, "")
    >>> samples(corpus, 10, fill=True).tolist()
    [[0, 2], [2, 1], [3, 1]]
    >>> samples(corpus, 10, fill=False, least=2).tolist()
    [[0, 2], [2, 1], [3, 1]]
    """
    firsts: list[int] = []
    first, tokens, current = 0, 0, -1
    for start in range(0, len(corpus), AT_ONCE):
        part = corpus.rows[start : start + AT_ONCE + 1]
        lengths, documents = np.diff(part[:, 0]).tolist(), part[:-1, 1].tolist()
        for place, (length, document) in enumerate(zip(lengths, documents, strict=True), start):
            full = tokens + length > room if fill else place - first >= least
            if full or document != current:
                firsts.append(place)
                first, tokens, current = place, 0, document
            tokens += length
    begins = np.asarray(firsts, np.int64)
    return np.stack([begins, np.diff(np.append(begins, len(corpus)))], axis=1)
