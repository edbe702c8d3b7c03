"""Texts changed word by word: the same from the same seed, shares as asked for, and only words of a kind change places."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from lianzhi.distill.augmentation.word_level import Likes, WordLevelOptions, changed, word_level
from lianzhi.errors import DataError, RecipeError
from lianzhi.tasks.readers.tagged import tags_of
from lianzhi.tasks.words import MASK, WORD

TAGS = {"good": "jj", "bad": "jj", "dull": "jj", "film": "nn", "plot": "nn", "a": "at", "the": "at"}
WORDS = [*TAGS, "zork", "'s", "."]


def texts(count=200, length=12, seed=0):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=length)) for _ in range(count)]


def only(**options):
    return WordLevelOptions(**{"mask": 0, "same_tag": 0, "ngram": 0, **options})


def test_the_same_seed_gives_the_same_and_another_another():
    given = texts(30)
    first, again, other = (word_level(given, tags=TAGS, seed=seed) for seed in (3, 3, 4))
    assert first.texts == again.texts
    assert np.array_equal(first.origins, again.origins)
    assert first.texts[30:] != other.texts[30:]


def test_what_is_made_of_a_text_does_not_depend_on_those_after_it():
    given = texts(30)
    few, many = word_level(given[:10]), word_level(given)
    made = [text for text, row in zip(many.texts[30:], many.origins[30:], strict=True) if row < 10]
    assert made == few.texts[10:]


def test_the_texts_come_first_and_no_two_are_equal():
    given = texts(50)
    made = word_level(given, tags=TAGS)
    assert made.texts[:50] == given
    assert made.origins[:50].tolist() == list(range(50))
    assert (
        len({" ".join(text.lower().split()) for text in made.texts[50:]} - set(given)) == len(made.texts) - 50
    )
    assert 50 * 15 < len(made.texts) <= 50 * 21


def test_a_tenth_of_the_words_is_masked():
    given = texts(400)
    made = word_level(given, options=only(mask=0.1, times=3))
    rows = [WORD.findall(text) for text in made.texts[400:]]
    copies = 400 * 3  # of 12 words; those without a mask are equal to their text, and gone
    assert sum(row.count(MASK) for row in rows) / (copies * 12) == pytest.approx(0.1, abs=0.01)
    assert len(rows) / copies == pytest.approx(1 - 0.9**12, abs=0.03)


def test_words_change_places_with_words_of_their_kind_by_how_common_they_are():
    given = ["bad plot the zork"] + ["good film a zork"] * 3
    made = word_level(given, tags=TAGS, options=only(same_tag=1.0, times=100))
    likes = Likes(TAGS, given)
    for text in made.texts[4:]:
        words = text.split()
        assert [TAGS.get(word) for word in words] == ["jj", "nn", "at", None]
    drawn = Counter(likes.other("bad", place / 1000) for place in range(1000))
    assert drawn == {"bad": 250, "good": 750}


def test_an_n_gram_is_a_run_of_the_text_with_its_own_spacing():
    given = ["One,  two -three; (four) five six's seven!"]
    made = word_level(given, options=only(ngram=1.0, longest=3, times=200))
    whole = WORD.findall(given[0])
    lengths = set()
    for text in made.texts[1:]:
        assert text in given[0]
        words = WORD.findall(text)
        lengths.add(len(words))
        assert any(whole[place : place + len(words)] == words for place in range(len(whole)))
    assert lengths == {1, 2, 3}


def test_nothing_drawn_leaves_the_text_as_it_is():
    for text in ["  a (good) film's end. ", "很好的film。", "..."]:
        spans = [found.span() for found in WORD.finditer(text)]
        assert changed(text, spans, iter([0.5] * 50), None, only()) == text


def test_of_a_pair_the_first_the_second_and_both_change_in_turn():
    given, second = texts(40), texts(40, seed=1)
    made = word_level(given, second, options=only(mask=0.5, times=3))
    assert made.pairs is not None
    kinds = Counter(
        (one != given[row], two != second[row])
        for one, two, row in list(zip(made.texts, made.pairs, made.origins, strict=True))[40:]
    )
    assert kinds == {(True, False): 40, (False, True): 40, (True, True): 40}


def test_without_a_tagged_corpus_it_is_said():
    given = texts(5)
    assert "no tagged corpus was given" in word_level(given).notes[0]
    assert word_level(given, tags=TAGS).notes == ()
    assert word_level(given, options=only(mask=0.1)).notes == ()


def test_a_text_of_masks_alone_is_not_kept():
    made = word_level(["good"], options=only(mask=1.0))
    assert made.texts == ["good"]


def test_tags_of_the_brown_corpus_as_it_is_packed(tmp_path):
    (tmp_path / "ca01").write_text(
        "\n\n\tThe/at City/nn-tl said/vbd 1/2/cd --/-- ``/`` no/at\n\tsaid/vbn said/vbd\n"
    )
    (tmp_path / "README").write_text("no tags")
    found = tags_of(tmp_path)
    assert found == {
        "the": "at",
        "city": "nn",
        "said": "vbd",
        "1/2": "cd",
        "--": "--",
        "``": "``",
        "no": "at",
    }


@pytest.mark.parametrize(
    ("line", "said"), [("The/at film", "line 1: 'film'"), ("/nn", "line 1"), ("", "no words")]
)
def test_a_corpus_without_tags_is_refused(tmp_path, line, said):
    (tmp_path / "c.txt").write_text(line)
    with pytest.raises(DataError, match=said):
        tags_of(tmp_path / "c.txt")


def test_what_does_not_go_together():
    with pytest.raises(RecipeError, match="at most 1"):
        WordLevelOptions(mask=0.6, same_tag=0.5)
    with pytest.raises(DataError, match="2 first texts and 1 second ones"):
        word_level(["a", "b"], ["c"])
