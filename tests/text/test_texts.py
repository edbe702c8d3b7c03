"""The texts behind a task: in the order of the ids, with another tokenizer, and others to train on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_text import sentences, write_tokenizer

import lianzhi as lz
from lianzhi.errors import DataError
from lianzhi.tasks import TextPreprocess
from lianzhi.tasks.texts import extremes, retokenized, texts_of, with_train
from lianzhi.tasks.tokens import tokenize


@pytest.fixture
def place(tmp_path):
    return str(write_tokenizer(tmp_path / "model"))


@pytest.fixture
def task(glue, place):
    return lz.task("sst2", data=glue, tokenizer=place, max_length=12)


def by_id(task, split, **options):
    """What the model gets of each sample, without padding, and the label."""
    found = {}
    for batch in task.batches(split, 16, **options):
        for place, number in enumerate(batch.ids.tolist()):
            mask = batch.inputs["attention_mask"][place].bool()
            found[number] = (batch.inputs["input_ids"][place][mask].tolist(), int(batch.labels[place]))
    return found


def test_texts_are_in_the_order_of_ids(task):
    known = dict(sentences(420, 0))
    for split in task.splits:
        found = texts_of(task, split)
        assert len(found) == task.size(split)
        assert found.pairs is None
        shown = by_id(task, split, **({"epoch": 1, "seed": 2} if split == "train" else {}))
        for number, text in enumerate(found.texts):
            ids = task.preprocess.tokenizer.encode(text).ids
            assert shown[number] == (ids, found.labels[number])
            assert known[text] == found.labels[number]


def test_another_tokenizer_keeps_splits_labels_and_ids(task, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = sorted({word for text, _ in sentences(420, 0) for word in text.split()})
    vocabulary = {word: place for place, word in enumerate(["<pad>", "<unk>", *words])}
    other = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    other.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (tmp_path / "words").mkdir()
    other.save(str(tmp_path / "words" / "tokenizer.json"))
    preprocess = TextPreprocess.open(str(tmp_path / "words"), max_length=5, segments=False)
    made = retokenized(task, preprocess)
    assert made.preprocess is preprocess
    assert made.fingerprint() != task.fingerprint()
    for split in task.splits:
        before, after = texts_of(task, split), texts_of(made, split)
        assert (after.texts, after.labels.tolist()) == (before.texts, before.labels.tolist())
        for number, (ids, label) in by_id(made, split).items():
            assert ids == [vocabulary[word] for word in after.texts[number].split()][:5]
            assert label == after.labels[number]
    assert made.example_inputs["input_ids"].shape[1] <= 5
    assert task.example_inputs["input_ids"].max() < len(task.preprocess.tokenizer.get_vocab())
    longer = sum(len(text.split()) > 5 for text, _ in sentences(420, 0)[:360])
    assert made.notes[0] == f"{longer} of 360 texts of train are longer than 5 tokens and were cut"
    assert not any("12 tokens" in note for note in made.notes)


def test_the_same_tokenizer_gives_the_same_task(task):
    made = retokenized(task, task.preprocess)
    assert made.fingerprint() == task.fingerprint()
    assert made.notes == task.notes
    assert all(torch.equal(made.example_inputs[key], task.example_inputs[key]) for key in made.example_inputs)


def test_other_training_texts_leave_the_rest(task):
    before = {split: task.splits[split].digest() for split in task.splits}
    train = texts_of(task, "train")
    texts = [*train.texts, "a very fine film indeed and one more", "slow slow score"]
    labels = [*train.labels.tolist(), 1, 0]
    made = with_train(task, texts, None, labels)
    assert texts_of(made, "train").texts == texts
    assert texts_of(made, "train").labels.tolist() == labels
    assert {split: part.digest() == before[split] for split, part in made.splits.items()} == {
        "train": False,
        "validation": True,
        "calibration": True,
        "test": True,
    }
    assert made.fingerprint() != task.fingerprint()
    assert task.size("train") == len(train)
    assert (made.metric, made.labels, made.name) == (task.metric, task.labels, task.name)
    seen = [number for batch in made.batches("train", 16, epoch=0) for number in batch.ids.tolist()]
    assert sorted(seen) == list(range(len(texts)))


def test_training_texts_of_other_splits_are_left_out_and_said(task):
    reported = texts_of(task, "test").texts[:3]
    chosen = texts_of(task, "validation").texts[0].upper() + " "
    fresh = ["a new fresh film", "an old dull film"]
    made = with_train(task, [*reported, fresh[0], chosen, fresh[1]], None, [0, 0, 0, 1, 0, 0])
    assert texts_of(made, "train").texts == fresh
    assert texts_of(made, "train").labels.tolist() == [1, 0]
    assert "4 of the new training texts stand in another split too and were left out" in made.notes
    with pytest.raises(DataError, match="none is left"):
        with_train(task, reported, None, [0, 0, 0])


@pytest.mark.parametrize(
    ("texts", "pairs", "labels", "message"),
    [
        (["a new film"], None, [2], "text 0: label 2 is outside the class range 0 to 1"),
        (["a new film", " "], None, [1, 1], "text 1: an empty text"),
        (["a new film"], None, [1, 0], r"1 new training texts, 1 second texts and labels of shape \(2,\)"),
        (["a new film"], ["b"], [1], "is of single texts, and the new training texts are not"),
        (["a new film"], None, [0.5], "labels are float64, and the task's are int64"),
        ([], None, np.zeros(0, np.int64), "no texts"),
    ],
)
def test_training_texts_that_do_not_fit_are_refused(task, texts, pairs, labels, message):
    with pytest.raises(DataError, match=message):
        with_train(task, texts, pairs, labels)


def test_a_task_of_images_has_no_texts():
    images = lz.task("synthetic", samples=16, classes=2, shape=(3, 8, 8))
    with pytest.raises(DataError, match="task 'synthetic' is not of texts"):
        texts_of(images, "train")
    with pytest.raises(DataError, match="is not of texts"):
        with_train(images, ["a"], None, [0])
    with pytest.raises(DataError, match="no split 'tset'; did you mean 'test'"):
        texts_of(images, "tset")


def test_the_texts_that_ask_most_of_a_model(task):
    rows = [ids for split in task.splits for ids, _ in by_id(task, split).values()]
    (length, longest), (token, last), (final, put) = extremes(task)
    most = max(map(len, rows))
    assert length == f"the longest text, of {most} tokens"
    assert longest["input_ids"].shape == (1, most)
    assert token == f"a text with token {max(map(max, rows))}"
    assert last["input_ids"].max() == max(map(max, rows))
    assert final == f"the tokenizer's last token, {task.preprocess.ids - 1}"
    assert put["input_ids"].max() == task.preprocess.ids - 1 > last["input_ids"].max()
    assert torch.equal(
        put["input_ids"] != longest["input_ids"], torch.arange(most)[None] == 1
    )  # a word's place
    assert extremes(lz.task("synthetic", samples=20)) == []


def test_texts_that_hold_the_sign_between_texts_have_tokens_of_their_own(bert):
    """The cache knew all texts by one joined text, in which these are the same."""
    preprocess = TextPreprocess.open(str(bert), max_length=16)
    first = tokenize(["a film\0good", "plot"], None, preprocess)
    second = tokenize(["a film", "good\0plot"], None, preprocess)
    assert first.digest != second.digest
    assert first.row(0).tolist() != second.row(0).tolist()
