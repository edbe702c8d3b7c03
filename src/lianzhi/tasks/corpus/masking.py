"""Masked words: Devlin et al. 2019 (1810.04805), with whole words as in their code's later version.

Of a sample's tokens `share` are asked for, whole words at a time. Of those tokens 80 % become the mask, 10 % another
token, and 10 % stay. Words that would ask for more than the share are passed over. All draws are a function of a key
and the sample's id.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lianzhi.tasks import hashing
from lianzhi.tasks.corpus.frame import Frame

NOT_ASKED = -100
MASKED, REPLACED = 0.8, 0.9  # below the first: the mask; below the second: another token


def mask_words(
    ids: NDArray[np.int64],
    own: NDArray[np.bool_],
    frame: Frame,
    sample: int,
    key: np.uint64,
    *,
    share: float,
    whole_words: bool = True,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tokens as the model sees them, and what it is asked: the token, or -100 where nothing is.

    `own` is false for tokens that the tokenizer put around the texts, which are never asked for. `frame.mask` must be
    known.
    """
    asked = np.full(len(ids), NOT_ASKED, np.int64)
    chosen = _chosen(ids, own, frame, sample, key, share, whole_words)
    if not len(chosen):
        return ids, asked
    assert frame.mask is not None
    asked[chosen] = ids[chosen]
    counters = _counters(sample, len(ids))[chosen]
    kind = hashing.uniform(hashing.key(int(key), "kind"), counters)
    other = hashing.integers(hashing.key(int(key), "token"), counters, len(frame.ordinary))
    seen = ids.copy()
    seen[chosen] = np.where(
        kind < MASKED, frame.mask, np.where(kind < REPLACED, frame.ordinary[other], ids[chosen])
    )
    return seen, asked


def _chosen(
    ids: NDArray[np.int64],
    own: NDArray[np.bool_],
    frame: Frame,
    sample: int,
    key: np.uint64,
    share: float,
    whole_words: bool,
) -> NDArray[np.int64]:
    """The places asked for."""
    places = np.flatnonzero(own)
    if not share or not len(places):
        return places[:0]
    begins = np.ones(len(places), bool)
    if whole_words:
        after_own = np.append(False, np.diff(places) == 1)
        begins = ~(frame.goes_on[ids[places]] & after_own)
    starts = np.flatnonzero(begins)
    sizes = np.diff(np.append(starts, len(places)))
    order = np.argsort(hashing.uniform(key, _counters(sample, len(starts))), kind="stable")
    wanted = max(1, round(share * len(places)))
    chosen: list[NDArray[np.int64]] = []
    left = wanted
    for word in order.tolist():
        size = int(sizes[word])
        if size <= left:
            chosen.append(places[starts[word] : starts[word] + size])
            left -= size
        if not left:
            break
    if not chosen:  # every word is longer than the share: the first drawn is asked for all the same
        word = int(order[0])
        chosen.append(places[starts[word] : starts[word] + sizes[word]])
    return np.sort(np.concatenate(chosen))


def _counters(sample: int, count: int) -> NDArray[np.int64]:
    return (sample << 20) + np.arange(count, dtype=np.int64)
