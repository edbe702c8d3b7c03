"""No word that could be read becomes unknown: small random vocabularies, in which characters lack pieces of their own."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from lianzhi.errors import DataError
from lianzhi.tasks import TextPreprocess
from lianzhi.tasks.vocabulary import reduced

LETTERS = "abcж"
ALL_WORDS = ["".join(word) for length in range(1, 6) for word in itertools.product(LETTERS, repeat=length)]


def made(model) -> TextPreprocess:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return TextPreprocess(64, ("input_ids", "attention_mask"), members={"tokenizer.json": tokenizer.to_str()})


def wordpiece(pieces) -> TextPreprocess:
    names = dict.fromkeys(["[PAD]", "[UNK]", *pieces])
    return made(models.WordPiece({name: place for place, name in enumerate(names)}, unk_token="[UNK]"))


def smaller(preprocess: TextPreprocess, counted) -> TextPreprocess:
    counts = np.asarray([name in counted for name in preprocess.vocabulary], np.int64)
    return reduced(preprocess, counts)[0]


def unknown(preprocess: TextPreprocess, words) -> set[str]:
    found = preprocess.tokenizer.encode_batch(list(words))
    return {word for word, one in zip(words, found, strict=True) if {"[UNK]", "<unk>"} & set(one.tokens)}


def test_a_piece_that_has_to_stay_is_reached():
    """`abcdж` was `abc ##dж`; without `abc` it would be `ab ##cd`, and ж alone has no piece."""
    letters = [*"abcdж", *(f"##{char}" for char in "abcd")]
    before = wordpiece([*letters, "abc", "ab", "##cd", "##dж"])
    after = smaller(before, {"ab", "##cd"})
    assert after.tokenizer.encode("abcdж").tokens == ["abc", "##dж"]


@settings(max_examples=80, deadline=None)
@given(
    texts=st.lists(st.text(LETTERS, min_size=2, max_size=4), min_size=1, max_size=14, unique=True),
    begins=st.sets(st.integers(0, 13)),
    lone=st.sets(st.sampled_from([*LETTERS, *(f"##{char}" for char in LETTERS)]), min_size=3),
    counted=st.sets(st.integers(0, 13)),
)
def test_no_word_of_wordpiece_becomes_unknown(texts, begins, lone, counted):
    pieces = [text if place in begins else f"##{text}" for place, text in enumerate(texts)]
    before = wordpiece([*sorted(lone), *pieces])
    after = smaller(before, {piece for place, piece in enumerate(pieces) if place in counted})
    assert unknown(after, ALL_WORDS) <= unknown(before, ALL_WORDS)


@settings(max_examples=60, deadline=None)
@given(
    merges=st.lists(
        st.tuples(st.text(LETTERS, min_size=1, max_size=2), st.sampled_from(LETTERS)), max_size=8
    ),
    lone=st.sets(st.sampled_from(LETTERS), min_size=2),
    counted=st.sets(st.text(LETTERS, min_size=2, max_size=3)),
    ignore=st.booleans(),
)
def test_no_word_of_bpe_becomes_unknown(merges, lone, counted, ignore):
    names = dict.fromkeys(["[UNK]", *sorted(lone)])
    kept = []
    for one, other in dict.fromkeys(merges):
        if ignore:
            names[one + other] = None
        if one in names and other in names:
            names[one + other] = None
            kept.append((one, other))
    vocabulary = {name: place for place, name in enumerate(names)}
    before = made(models.BPE(vocabulary, kept, unk_token="[UNK]", ignore_merges=ignore))
    after = smaller(before, counted)
    assert unknown(after, ALL_WORDS) <= unknown(before, ALL_WORDS)


def test_pieces_of_unigram_stay_that_alone_read_a_character():
    entries = [
        ("<unk>", 0.0),
        ("▁", -2.0),
        ("a", -2.0),
        ("b", -3.0),
        ("aж", -4.0),
        ("ab", -2.5),
        ("bb", -9.0),
    ]
    tokenizer = Tokenizer(models.Unigram(entries, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    before = TextPreprocess(
        64, ("input_ids", "attention_mask"), members={"tokenizer.json": tokenizer.to_str()}
    )
    after = smaller(before, {"ab"})
    assert after.tokenizer.encode("aж").tokens == before.tokenizer.encode("aж").tokens == ["▁", "aж"]
    left = json.loads(after.members["tokenizer.json"])["model"]["vocab"]
    assert min(score for _, score in left) == -9.0, "an unknown piece is priced by the least likely one"
    assert not unknown(after, ["aж", "abaж", "aжaж", "bab"])


def test_a_size_has_room_for_them():
    before = wordpiece([*"abcdж", *(f"##{char}" for char in "abcd"), "abc", "ab", "##cd", "##dж"])
    counts = np.ones(before.ids, np.int64)
    with pytest.raises(DataError, match="needed for characters without a token of their own"):
        reduced(before, counts, size=11)
