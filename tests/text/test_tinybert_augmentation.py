"""TinyBERT's augmentation: words replaced by what a masked LM or word vectors say, by hand and as a whole."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from tiny_corpus import VOCABULARY, sentences, write_masked_lm
from tiny_text import write_model

from lianzhi.distill.augmentation import masked_lm
from lianzhi.distill.augmentation.masked_lm import MaskedLM
from lianzhi.distill.augmentation.neighbours import neighbours
from lianzhi.distill.augmentation.tinybert import TinyBertAugmentation, augment
from lianzhi.distill.augmentation.words import replaced, words_of
from lianzhi.errors import ArtifactError, DataError, RecipeError
from lianzhi.models.text.vectors import WordVectors

TEXTS = ["the film is good", "a dull plot, and bad plays", "very fine cast!", "it is what it is"]
WHOLE = [place for place, word in enumerate(VOCABULARY) if word.isalpha()]


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return write_masked_lm(tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """Vectors of the tiny vocabulary's words with an s, and of one that is not letters."""
    file = tmp_path_factory.mktemp("vectors") / "tiny.txt"
    draw = np.random.default_rng(0)
    words = [f"{word}s" for word in VOCABULARY if word.isalpha()] + ["3d", "good", "film"]
    file.write_text(
        "".join(f"{word} {' '.join(f'{x:.4f}' for x in draw.normal(size=5))}\n" for word in words)
    )
    return file


def options_of(lm, vectors, **changes):
    return TinyBertAugmentation(**{"masked_lm": str(lm), "vectors": str(vectors), "candidates": 3, **changes})


def test_which_words():
    words = words_of("The plot isn't GOOD: 2nd take, x2, résumé; 很好")
    assert [word.text for word in words] == ["plot", "GOOD", "take", "résumé", "很", "好"]
    assert (
        replaced("a bad, bad film", words_of("a bad, bad film"), {1: "good", 2: "plot"}) == "a bad, good plot"
    )
    assert [word.text for word in words_of("a bad film", stop_words={"bad"})] == ["a", "film"]


def test_candidates_are_those_of_the_model(lm):
    """One word at a time, with inputs made by hand: [CLS] masked [SEP] as it is [SEP]."""
    from transformers import BertForMaskedLM

    model = BertForMaskedLM.from_pretrained(lm).eval()
    words = [words_of(text) for text in TEXTS]
    found = MaskedLM(str(lm)).candidates(TEXTS, words, 3)
    tokens = [2, VOCABULARY.index("the"), 4, VOCABULARY.index("is"), VOCABULARY.index("good"), 3]
    whole = [*tokens[1:2], VOCABULARY.index("film"), *tokens[3:]]
    with torch.no_grad():
        ids, types = torch.tensor([tokens + whole]), torch.tensor([[0] * 6 + [1] * 5])
        scores = model(ids, token_type_ids=types).logits[0, 2]
    ranked = [place for place in scores.argsort(descending=True).tolist() if place in WHOLE]
    ranked.remove(VOCABULARY.index("film"))
    assert found[0][0] == [VOCABULARY[place] for place in ranked[:3]]
    assert [word.text for word in words[1]] == ["dull", "plot", "bad", "plays"]
    assert [len(one) for one in found[1]] == [3, 3, 3, 0]  # "plays" has two pieces
    assert all(
        word.text not in chosen
        for row, one in zip(words, found, strict=True)
        for word, chosen in zip(row, one, strict=True)
    )


def test_batches_do_not_matter_and_more_than_there_are(lm):
    words = [words_of(text) for text in TEXTS]
    one = MaskedLM(str(lm), batch_size=1)._answers(TEXTS, words, 99)
    assert np.array_equal(one, MaskedLM(str(lm), batch_size=64)._answers(TEXTS, words, 99))
    counts = (one >= 0).sum(1)
    assert set(counts) == {0, len(WHOLE) - 1}


def test_a_word_behind_the_models_length_has_none(lm, monkeypatch):
    monkeypatch.setattr(masked_lm, "MOST_TOKENS", 16)
    text = "good " * 30 + "film"
    found = MaskedLM(str(lm)).candidates([text], [words_of(text)], 2)[0]
    assert found[0]
    assert not found[-1]


def test_the_second_time_the_model_is_not_read(lm, vectors, monkeypatch):
    first = augment(TEXTS, None, options_of(lm, vectors))
    monkeypatch.setattr(masked_lm, "read_masked_lm", None)
    assert augment(TEXTS, None, options_of(lm, vectors)).texts == first.texts
    assert augment(TEXTS, None, options_of(lm, vectors, copies=3)).texts  # the candidates are the same
    with pytest.raises(TypeError):
        augment(TEXTS, None, options_of(lm, vectors, candidates=4))
    with pytest.raises(TypeError):
        augment([*TEXTS, "good cast"], None, options_of(lm, vectors))


def test_neighbours_by_hand():
    draw = np.random.default_rng(1)
    words = [f"w{chr(97 + place % 26)}{chr(97 + place // 26)}" for place in range(150)]
    words[7] = "7up"
    matrix = draw.normal(size=(150, 6)).astype(np.float32)
    matrix[9] = 0
    found = neighbours([words[0], words[3].upper(), "absent"], WordVectors(words, matrix, "made"), 5)
    units = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)
    for word, place in ((words[0], 0), (words[3].upper(), 3)):
        ranked = [row for row in np.argsort(-(units @ units[place])) if row not in (place, 7, 9)]
        assert found[word] == [words[row] for row in ranked[:5]]
    assert found["absent"] == []


class TestAugment:
    def test_every_word_at_probability_one(self, lm, vectors):
        options = options_of(lm, vectors, probability=1.0, copies=8)
        made = augment(TEXTS, None, options)
        assert made.texts[0] == TEXTS[0]
        assert "it is what it is" in made.texts
        words = [words_of(text) for text in TEXTS]
        found = MaskedLM(str(lm)).candidates(TEXTS, words, 3)
        found[1][3] = neighbours(["plays"], _read(vectors), 3)["plays"]
        assert len(found[1][3]) == 3
        for text, row in zip(made.texts, made.origins, strict=True):
            if text != TEXTS[row]:
                new = words_of(text, stop_words=())
                old = words_of(TEXTS[row], stop_words=())
                assert len(new) == len(old)
                spots = {word.begin: place for place, word in enumerate(words[row])}
                for before, after in zip(old, new, strict=True):
                    place = spots.get(before.begin)
                    assert (after.text == before.text) if place is None else (after.text in found[row][place])

    def test_how_often(self, lm, vectors):
        texts = [" ".join(["good film plot"] * 6) + f" {word}" for word in ("bad", "dull", "fine")]
        made = augment(texts, None, options_of(lm, vectors, copies=200, candidates=12))
        changed = [
            sum(a != b for a, b in zip(text.split(), texts[row].split(), strict=True)) / 19
            for text, row in zip(made.texts, made.origins, strict=True)
            if text != texts[row]
        ]
        assert np.mean(changed) == pytest.approx(0.4, abs=0.02)

    def test_none_twice_at_most_n_and_in_order(self, lm, vectors):
        texts = [*sentences(20, 5), "good film", "good film"]
        made = augment(texts, None, options_of(lm, vectors, copies=4))
        assert len(set(made.texts)) == len(made.texts)
        assert (np.diff(made.origins) >= 0).all()
        assert set(texts) <= set(made.texts)
        assert np.bincount(made.origins).max() <= 5

    def test_a_function_of_the_seed(self, lm, vectors):
        options = options_of(lm, vectors)
        assert augment(TEXTS, None, options, seed=1).texts == augment(TEXTS, None, options, seed=1).texts
        assert augment(TEXTS, None, options, seed=1).texts != augment(TEXTS, None, options, seed=2).texts

    def test_stop_words_in_any_case(self, lm, vectors):
        made = [
            augment(TEXTS, None, options_of(lm, vectors, stop_words=words))
            for words in (("film", "dull", "plot"), ("Film", "DULL", "plot"))
        ]
        assert made[0].texts == made[1].texts
        assert all(
            "film" in text for text, row in zip(made[1].texts, made[1].origins, strict=True) if row == 0
        )

    def test_pairs_one_side_at_a_time(self, lm, vectors):
        made = augment(TEXTS[:2], TEXTS[1:3], options_of(lm, vectors, copies=6))
        both = set(zip(made.texts, made.pairs, strict=True))
        assert len(both) == len(made)
        sides = set()
        for one, two, row in zip(made.texts, made.pairs, made.origins, strict=True):
            changed = (one != TEXTS[row], two != TEXTS[row + 1])
            assert changed != (True, True)
            sides.add(changed)
        assert len(sides) == 3
        with pytest.raises(DataError, match="2 texts and 1 second"):
            augment(TEXTS[:2], TEXTS[:1], options_of(lm, vectors))

    @pytest.mark.parametrize("words", ["vectors", "masked_lm"])
    def test_one_source_alone(self, lm, vectors, words):
        options = TinyBertAugmentation(
            words=words,
            candidates=3,
            probability=1.0,
            **{words: str(lm if words == "masked_lm" else vectors)},
        )
        texts = [
            text
            for text in augment(["a dull film plays"], None, options).texts
            if text != "a dull film plays"
        ]
        assert texts
        assert all(text.startswith("a ") for text in texts)
        plays = {text.split()[-1] for text in texts}
        assert (plays == {"plays"}) == (words == "masked_lm")
        assert ({text.split()[1] for text in texts} == {"dull"}) == (words == "vectors")  # it has no vector


class TestErrors:
    def test_sources_that_are_not_named(self):
        with pytest.raises(
            RecipeError, match=r"'both' needs masked_lm: a Hugging Face.* and vectors: a file"
        ):
            TinyBertAugmentation()
        with pytest.raises(RecipeError, match="'vectors' needs vectors: a file"):
            TinyBertAugmentation(words="vectors", masked_lm="x")

    def test_sources_that_are_not_there(self, lm, vectors, tmp_path):
        with pytest.raises(ArtifactError, match=r"masked LM: .*nowhere"):
            augment(TEXTS, None, options_of(tmp_path / "nowhere", vectors))
        with pytest.raises(DataError, match="no such file"):
            augment(TEXTS, None, options_of(lm, tmp_path / "nowhere.txt"))
        with pytest.raises(ArtifactError, match=r"not the folder of a Hugging Face model"):
            augment(TEXTS, None, options_of(tmp_path, vectors))

    def test_a_model_without_a_masked_lm_head(self, lm, vectors, tmp_path):
        headless = write_model(tmp_path / "headless", vocab_size=len(VOCABULARY))
        shutil.copy(lm / "tokenizer.json", headless)
        with pytest.raises(ArtifactError, match="was saved with its masked-LM head"):
            augment(TEXTS, None, options_of(headless, vectors))

    def test_a_tokenizer_without_a_mask(self, vectors, tmp_path):
        with pytest.raises(DataError, match="no mask token"):
            augment(TEXTS, None, options_of(write_model(tmp_path / "plain"), vectors))


def _read(file):
    from lianzhi.models.text.vectors import read_vectors

    return read_vectors(str(file))
