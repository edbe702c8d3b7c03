"""Texts of one part as token ids, made once and kept in the cache: one flat array, and where each text begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache as remembered
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError
from lianzhi.tasks import cache, hashing
from lianzhi.tasks.text_preprocess import TextPreprocess
from lianzhi.tasks.waiting import waiting

VERSION = 2  # 2: segments other than 0 and then 1 are refused
AT_ONCE = 8192


@dataclass(frozen=True)
class Tokens:
    """Row `i` is ``ids[starts[i]:starts[i + 1]]``; `second` is where a pair's second text begins in it, else 0.

    `texts`, and `pairs` where there are two a row, are what was tokenized.
    """

    texts: Sequence[str]
    pairs: Sequence[str] | None
    ids: NDArray[Any]
    starts: NDArray[np.int64]
    second: NDArray[np.int32]
    cut: NDArray[np.bool_]
    digest: str

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text."""
        return np.diff(self.starts)

    def row(self, number: int) -> NDArray[Any]:
        """The ids of one text."""
        return self.ids[self.starts[number] : self.starts[number + 1]]

    def segments(self, number: int) -> NDArray[np.int64]:
        """0 for the tokens of the first text, 1 for those of the second."""
        length = int(self.starts[number + 1] - self.starts[number])
        begin = int(self.second[number])
        return (np.arange(length) >= begin).astype(np.int64) if begin else np.zeros(length, np.int64)


def tokenize(texts: Sequence[str], pairs: Sequence[str] | None, preprocess: TextPreprocess) -> Tokens:
    """Tokenize the texts of one part, or read what an earlier run made of the same texts and tokenizer."""
    hashed = hashing.digest(_whole(texts), "" if pairs is None else _whole(pairs), str(len(texts)))
    key = hashing.digest(str(VERSION), preprocess.digest(), hashed)

    @remembered
    def made() -> tuple[NDArray[Any], NDArray[np.int64]]:
        with waiting(f"tokenizing {len(texts):,} texts"):
            return _encode(texts, pairs, preprocess)

    ids = cache.array(f"tokens-{key}", lambda: made()[0])
    facts = cache.array(f"tokens-{key}-rows", lambda: made()[1])
    if facts.shape != (len(texts), 3) or int(facts[:, 0].sum()) != len(ids):  # a cache of something else
        ids, facts = made()
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(facts[:, 0], dtype=np.int64)])
    return Tokens(texts, pairs, ids, starts, facts[:, 1].astype(np.int32), facts[:, 2].astype(bool), key)


def _whole(texts: Sequence[str]) -> str:
    """All texts as one, which no other texts give.

    >>> _whole(["a\\0", "b"]) == _whole(["a", "\\0b"])
    False
    """
    joined = "\0".join(texts)
    if joined.count("\0") < len(texts):
        return joined
    return "\0".join([*texts, *(str(len(text)) for text in texts)])  # a text holds the sign itself


def _encode(
    texts: Sequence[str], pairs: Sequence[str] | None, preprocess: TextPreprocess
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """All ids in a row, and (tokens, beginning of the second text, whether it was cut) of each text.

    Raises:
        DataError: the model reads segments, and the tokenizer gives others than 0 and then 1.
    """
    tokenizer, reads_segments = preprocess.tokenizer, "token_type_ids" in preprocess.inputs
    kind = np.uint16 if preprocess.ids <= 1 << 16 else np.int32
    parts: list[NDArray[Any]] = []
    facts = np.zeros((len(texts), 3), np.int64)
    for start in range(0, len(texts), AT_ONCE):
        chosen: Any = list(texts[start : start + AT_ONCE])
        if pairs is not None:
            chosen = list(zip(chosen, pairs[start : start + AT_ONCE], strict=True))
        for row, found in enumerate(tokenizer.encode_batch(chosen), start):
            second = _second(found.type_ids) if reads_segments else 0
            facts[row] = (len(found.ids), second, bool(found.overflowing))
            parts.append(np.asarray(found.ids, kind))
    return np.concatenate(parts), facts


def _second(segments: list[int]) -> int:
    """Where the second text begins; 0 where there is none.

    >>> _second([0, 0, 0]), _second([0, 0, 1])
    (0, 2)
    """
    begin = segments.index(1) if 1 in segments else len(segments)
    if (segments and begin == 0) or segments.count(0) != begin or segments.count(1) != len(segments) - begin:
        raise DataError(
            f"the tokenizer gives a text the segments {', '.join(map(str, dict.fromkeys(segments)))} in this order; 0, and 1 "
            f"after it, can be read (XLNet's has others): set segments: false, or take another model"
        )
    return begin if 1 in segments else 0
