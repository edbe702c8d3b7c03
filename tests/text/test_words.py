"""The tokenizer of whole words: what is a word, which ones are known, and a place among the other tokenizers."""

from __future__ import annotations

import json

import pytest
import torch

import lianzhi as lz
from lianzhi.errors import DataError
from lianzhi.tasks import TextPreprocess
from lianzhi.tasks.words import of_words, size_of, split_words, word_tokenizer


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's a GOOD film.", ["it", "'s", "a", "good", "film", "."]),
        ("it 's a good film .", ["it", "'s", "a", "good", "film", "."]),
        ("I don't, he doesn't", ["i", "do", "n't", ",", "he", "does", "n't"]),
        ("i do n't , he does n't", ["i", "do", "n't", ",", "he", "does", "n't"]),
        ("low-budget `` art ''", ["low", "-", "budget", "`", "`", "art", "'", "'"]),
        ("Café [MASK] 3d", ["café", "[mask]", "3d"]),
        ("很好的film。", ["很", "好", "的", "film", "。"]),
    ],
)
def test_words_and_signs(text, words):
    assert list(split_words([text])) == [words]


def test_the_commonest_words_have_an_entry_ties_by_the_alphabet():
    texts = ["b a c c", "c b a", "d e [MASK] [MASK] [MASK] [MASK]"]
    vocabulary = json.loads(word_tokenizer(texts, size=6))["model"]["vocab"]
    assert vocabulary == {"[PAD]": 0, "[UNK]": 1, "c": 2, "a": 3, "b": 4, "d": 5}
    assert word_tokenizer(reversed(texts), size=6) == word_tokenizer(texts, size=6)


def test_a_masked_or_rare_word_is_unknown():
    preprocess = of_words(["a good film", "a bad film"], max_length=8, size=4)
    assert preprocess.vocabulary == ("[PAD]", "[UNK]", "a", "film")
    assert preprocess("A [MASK] film")["input_ids"].tolist() == [[2, 1, 3]]
    assert preprocess("a good film")["input_ids"].tolist() == [[2, 1, 3]]
    assert list(preprocess("film")) == ["input_ids", "attention_mask"]


def test_pairs_are_told_apart_and_cut_where_they_are_longest():
    preprocess = of_words(["a b c d"], max_length=5, pairs=True)
    batch = preprocess("a b c d", "a b")
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 1, 1]]
    assert batch["input_ids"].shape == (1, 5)


def test_in_an_artifact_it_is_a_tokenizer_like_any_other(tmp_path):
    preprocess = of_words(["a good film", "a bad film"], max_length=8)
    model = lz.model("bilstm", vocabulary=preprocess.vocabulary, width=4, hidden=3)
    inputs = {name: torch.from_numpy(value) for name, value in preprocess("a good film").items()}
    folder = lz.save(
        model,
        tmp_path / "m",
        example_inputs=inputs,
        preprocess=preprocess,
        tokenizer=preprocess.members,
    )
    again = TextPreprocess.open(str(folder), max_length=8)
    assert again.digest() == preprocess.digest() == TextPreprocess.load(folder).digest()


def test_sizes_that_are_none():
    assert (size_of("words"), size_of("words:50"), size_of("./words")) == (10_000, 50, None)
    for place in ("words:", "words:many", "words:-3"):
        with pytest.raises(DataError, match="words:5000"):
            size_of(place)
    with pytest.raises(DataError, match="3 to"):
        word_tokenizer(["a"], size=2)
    with pytest.raises(DataError, match="no words"):
        word_tokenizer(["[MASK]", " "])
