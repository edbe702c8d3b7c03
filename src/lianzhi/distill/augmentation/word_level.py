"""Texts changed word by word: Tang et al. 2019, Distilling Task-Specific Knowledge from BERT (1903.12136), section 3.3.

Each word of a copy draws one number: below `mask` it becomes ``[MASK]``, below `mask` + `same_tag` another word of its
part of speech, drawn by how common that is in the texts; then, with the probability `ngram`, only one to `longest`
words in a row stay. Of a pair the copies change the first text, the second, and both, in turn.

Parts of speech come from a tagged corpus (``word/tag``, as the Brown corpus has them): a word has its commonest tag,
and one that the corpus does not know stays. The paper tags each sentence instead, with a tagger that was trained on such a corpus.
"""

from __future__ import annotations

import bisect
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from pydantic import Field, model_validator

from lianzhi.config import Config
from lianzhi.distill.augmentation.augmented import Augmented
from lianzhi.errors import DataError
from lianzhi.tasks import hashing
from lianzhi.tasks.texts import keys_of
from lianzhi.tasks.words import MASK, WORD

Draws = Iterator[float]


class WordLevelOptions(Config):
    """Options of `word_level`; probabilities are a word's, that of `ngram` a copy's."""

    times: int = Field(default=20, ge=1, le=1000, description="copies of each text, before equal ones go")
    mask: float = Field(default=0.1, ge=0, le=1)
    same_tag: float = Field(default=0.1, ge=0, le=1)
    ngram: float = Field(default=0.25, ge=0, le=1)
    longest: int = Field(default=5, ge=1, description="words that stay at most when an n-gram is taken")

    @model_validator(mode="after")
    def _together(self) -> WordLevelOptions:
        if self.mask + self.same_tag > 1:
            raise ValueError("'mask' and 'same_tag' are of one draw; together they are at most 1")
        return self


class Likes:
    """Words of the same part of speech, and how common each is in some texts.

    >>> likes = Likes({"good": "jj", "bad": "jj", "film": "nn"}, ["a good film", "a bad bad film"])
    >>> likes.other("Good", 0.5), likes.other("film", 0.5), likes.other("a", 0.5)
    ('bad', 'film', None)
    """

    def __init__(self, tags: Mapping[str, str], texts: Iterable[str]) -> None:
        counts = Counter(word.lower() for text in texts for word in WORD.findall(text))
        self.tags = {word: tags[word] for word in counts if word in tags}
        groups: dict[str, list[str]] = {}
        for word in sorted(self.tags):
            groups.setdefault(self.tags[word], []).append(word)
        self.groups = {
            tag: (words, list(itertools.accumulate(counts[word] for word in words)))
            for tag, words in groups.items()
        }

    def other(self, word: str, chance: float) -> str | None:
        """The word of the same tag that `chance`, in [0, 1), falls on; None for a word without a tag."""
        tag = self.tags.get(word.lower())
        if tag is None:
            return None
        words, sums = self.groups[tag]
        return words[bisect.bisect_right(sums, chance * sums[-1])]


def word_level(
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    tags: Mapping[str, str] | None = None,
    seed: int = 0,
    options: WordLevelOptions | None = None,
) -> Augmented:
    """The texts, then new ones; none is equal to another one, or to one of `texts`, up to case and white space.

    >>> made = word_level(["a good film", "a dull plot"], options=WordLevelOptions(times=2, mask=0.5, same_tag=0))
    >>> made.texts[2:], made.origins[2:].tolist()
    (['[MASK] [MASK] film', '[MASK] [MASK] plot', 'a dull [MASK]'], [0, 1, 1])

    `tags` is the part of speech of words in lower case (`lianzhi.tasks.readers.tagged.tags_of` reads them); without it no
    word is replaced by another, and a note says so. What is made of a text depends on the seed, the text and its place
    only. Copies of which no word is left are not kept.

    Raises:
        DataError: there are not as many second texts as first ones.
    """
    if pairs is not None and len(pairs) != len(texts):
        raise DataError(f"{len(texts)} first texts and {len(pairs)} second ones; each has one")
    chosen = options or WordLevelOptions()
    likes = None if not tags else Likes(tags, itertools.chain(texts, pairs or ()))
    sides = [list(texts)] if pairs is None else [list(texts), list(pairs)]
    origin = list(range(len(texts)))
    seen = set(keys_of(texts, pairs))
    for row in range(len(texts)):
        for copy in _copies([side[row] for side in sides], row, likes, seed, chosen):
            mark = keys_of(copy[:1], copy[1:] or None)[0]
            if mark in seen or not all(_says_something(text) for text in copy):
                continue
            seen.add(mark)
            origin.append(row)
            for side, text in zip(sides, copy, strict=True):
                side.append(text)
    second = None if pairs is None else sides[1]
    return Augmented(sides[0], second, np.asarray(origin, np.int64), _notes(chosen, likes))


def _copies(
    whole: list[str], row: int, likes: Likes | None, seed: int, options: WordLevelOptions
) -> Iterator[list[str]]:
    """The copies of one text or pair."""
    spans = [[found.span() for found in WORD.finditer(text)] for text in whole]
    count = options.times * sum(2 * len(words) + 3 for words in spans)
    draws = iter(hashing.uniform(hashing.key(seed, "word_level", row), np.arange(count)).tolist())
    for number in range(options.times):
        turn = number % 3 if len(whole) == 2 else 2  # the first text, the second, both
        yield [
            changed(text, words, draws, likes, options) if turn in (side, 2) else text
            for side, (text, words) in enumerate(zip(whole, spans, strict=True))
        ]


def changed(
    text: str,
    spans: Sequence[tuple[int, int]],
    draws: Draws,
    likes: Likes | None,
    options: WordLevelOptions,
) -> str:
    """One copy of a text, of which the words stand at `spans`; what stands between them stays."""
    words = [_word(text[start:end], next(draws), next(draws), likes, options) for start, end in spans]
    first, last = 0, len(words)
    take, size, place = next(draws), next(draws), next(draws)
    length = 1 + int(size * options.longest)
    if take < options.ngram and length < len(words):
        first = int(place * (len(words) - length + 1))
        last = first + length
    pieces = ["" if first else text[: spans[0][0]]] if spans else [text]
    for number in range(first, last):
        pieces.append(words[number])
        following = spans[number + 1][0] if number + 1 < len(spans) else len(text)
        pieces.append(text[spans[number][1] : following])
    return "".join(pieces) if last == len(words) else "".join(pieces).rstrip()


def _word(word: str, chance: float, which: float, likes: Likes | None, options: WordLevelOptions) -> str:
    if chance < options.mask:
        return MASK
    if likes is not None and chance < options.mask + options.same_tag:
        return likes.other(word, which) or word
    return word


def _says_something(text: str) -> bool:
    return any(word != MASK for word in WORD.findall(text))


def _notes(options: WordLevelOptions, likes: Likes | None) -> tuple[str, ...]:
    if likes is None and options.same_tag:
        return (
            "no word was replaced by another of its part of speech: no tagged corpus was given (tags: a folder)",
        )
    return ()
