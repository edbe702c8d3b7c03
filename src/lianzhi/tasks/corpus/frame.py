"""What a tokenizer puts around texts, which of its tokens go on with a word, and its mask: found by asking it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError
from lianzhi.tasks.text_preprocess import TextPreprocess

_MASKS = ("[MASK]", "<mask>")
_BEGINNINGS = ("▁", "Ġ")

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Frame:
    """One text is ``before + text + after``, two are ``before + text + between + text + after``.

    `second` says for each place of the two-text frame whether it counts to the second text: (before, first text,
    between, second text, after). `goes_on` has an entry for each token: whether it goes on with a word that the
    token before it began. `ordinary` are the tokens that may stand for a word.
    """

    before: Ids
    between: Ids
    after: Ids
    segments: tuple[Ids, Ids, Ids]
    goes_on: NDArray[np.bool_]
    ordinary: Ids
    mask: int | None

    def single(self, text: Ids) -> tuple[Ids, NDArray[np.bool_]]:
        """The tokens of one text, and which of them are its own."""
        ids = np.concatenate([self.before, text, self.after])
        own = np.zeros(len(ids), bool)
        own[len(self.before) : len(ids) - len(self.after)] = True
        return ids, own

    def pair(self, one: Ids, two: Ids) -> tuple[Ids, NDArray[np.bool_], Ids]:
        """The tokens of two texts, which of them are their own, and 1 for what counts to the second."""
        ids = np.concatenate([self.before, one, self.between, two, self.after])
        own = np.ones(len(ids), bool)
        own[: len(self.before)] = False
        own[len(self.before) + len(one) :][: len(self.between)] = False
        own[len(ids) - len(self.after) :] = False
        first, middle, last = self.segments
        types = np.concatenate([first, np.zeros(len(one)), middle, np.ones(len(two)), last])
        return ids, own, types.astype(np.int64)

    @property
    def around(self) -> int:
        """How many tokens are put around one text."""
        return len(self.before) + len(self.after)

    @property
    def around_two(self) -> int:
        """How many tokens are put around two texts."""
        return self.around + len(self.between)


def frame_of(preprocess: TextPreprocess) -> Frame:
    """Ask the tokenizer.

    Raises:
        DataError: it does something else than put tokens around the texts.
    """
    tokenizer = preprocess.tokenizer
    word = next((word for word in ("a", "x", "1", "的") if len(_plain(tokenizer, word)) == 1), None)
    if word is None:
        raise DataError(
            "corpus: the tokenizer has no token for the word 'a'; give a tokenizer made for sentences"
        )
    token = _plain(tokenizer, word)[0]
    one, two = tokenizer.encode(word), tokenizer.encode(word, word)
    places = [place for place, number in enumerate(two.ids) if number == token]
    if len(places) != 2 or one.ids.count(token) != 1:
        raise DataError("corpus: the tokenizer does not keep two texts apart; give another tokenizer")
    first, second = places
    before, between, after = two.ids[:first], two.ids[first + 1 : second], two.ids[second + 1 :]
    if one.ids != [*before, token, *after]:
        raise DataError("corpus: the tokenizer puts other tokens around one text than around two")
    types = np.asarray(two.type_ids, np.int64)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    special = {number for number, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    special |= {*before, *between, *after, preprocess.pad_id}
    return Frame(
        _ids(before),
        _ids(between),
        _ids(after),
        (types[:first], types[first + 1 : second], types[second + 1 :]),
        _goes_on(vocabulary),
        _ids(sorted(set(vocabulary.values()) - special)),
        _mask(preprocess, vocabulary),
    )


def _plain(tokenizer: Any, word: str) -> list[int]:
    return list(tokenizer.encode(word, add_special_tokens=False).ids)


def _ids(values: list[int]) -> Ids:
    return np.asarray(values, np.int64)


def _goes_on(vocabulary: dict[str, int]) -> NDArray[np.bool_]:
    """WordPiece marks what goes on (##), the others what begins (▁, Ġ); unmarked vocabularies have whole words."""
    table = np.zeros(max(vocabulary.values()) + 1, bool)
    if any(token.startswith("##") for token in vocabulary):
        marked = [number for token, number in vocabulary.items() if token.startswith("##")]
    elif any(token.startswith(_BEGINNINGS) and len(token) > 1 for token in vocabulary):
        marked = [number for token, number in vocabulary.items() if not token.startswith(_BEGINNINGS)]
    else:
        return table
    table[marked] = True
    return table


def _mask(preprocess: TextPreprocess, vocabulary: dict[str, int]) -> int | None:
    """The token that stands for a word that is asked for."""
    named = []
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        value = json.loads(preprocess.members.get(name, "{}")).get("mask_token")
        named.append(value.get("content") if isinstance(value, dict) else value)
    return next((vocabulary[token] for token in (*named, *_MASKS) if token in vocabulary), None)
