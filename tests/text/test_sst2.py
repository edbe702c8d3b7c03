"""The task `sst2`: what is read, how it is cut, and what is refused with the place named."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
from tiny_text import sentences, write_sst2, write_table, write_tokenizer

import lianzhi as lz
from lianzhi.errors import DataError, RecipeError
from lianzhi.tasks import cache
from lianzhi.tasks.readers import tsv
from lianzhi.tasks.text_part import normal

ROWS = sentences(60, 3)


@pytest.fixture
def place(tmp_path):
    return str(write_tokenizer(tmp_path / "model"))


def task_of(folder, place, **options):
    return lz.task("sst2", data=folder, tokenizer=place, **options)


def texts(task, split):
    """The sentences of a split, decoded."""
    part = task.splits[split]
    return [task.preprocess.tokenizer.decode(part.tokens.row(row)) for row in part.rows]


def test_the_folder_or_the_one_above(glue, place):
    here, above = task_of(glue / "SST-2", place), task_of(glue, place)
    assert here.fingerprint() == above.fingerprint()
    assert {name: split.size for name, split in here.splits.items()} == {
        "train": 288,
        "validation": 36,
        "calibration": 36,
        "test": 60,
    }
    assert (here.metric, here.reported, here.labels) == ("accuracy", "test", ["negative", "positive"])
    assert here.preprocess.to_dict() == {
        "kind": "text",
        "max_length": 128,
        "inputs": [
            "input_ids",
            "attention_mask",
        ],  # neither the tokenizer nor a config says that there are segments
        "pad_id": 0,
        "pad_type_id": 0,
        "pairs": False,
    }


def test_cuts_are_stratified_disjoint_and_seeded(glue, place):
    first, again = task_of(glue, place), task_of(glue, place)
    other = task_of(glue, place, split_seed=1)
    for name in ("train", "validation", "calibration"):
        assert np.array_equal(first.splits[name].rows, again.splits[name].rows)
        assert abs(first.splits[name].labels.mean() - 0.5) < 0.03
    assert not np.array_equal(first.splits["validation"].rows, other.splits["validation"].rows)
    rows = np.concatenate([first.splits[name].rows for name in ("train", "validation", "calibration")])
    assert sorted(rows) == list(range(360))
    small = task_of(glue, place, validation=0.25, calibration=10, limit=40)
    assert [small.size(name) for name in ("train", "validation", "calibration", "test")] == [40, 40, 10, 40]


def test_no_text_stands_in_two_parts(tmp_path, place):
    dev = ROWS[:10]
    rows = ROWS[8:] + [(f"  {text.upper()} ", label) for text, label in ROWS[8:40]] * 2
    write_table(tmp_path / "train.tsv", rows)
    write_table(tmp_path / "dev.tsv", dev)
    task = task_of(tmp_path, place, validation=30, calibration=20)
    parts = {name: {normal(text) for text in texts(task, name)} for name in task.splits}
    names = list(parts)
    for place_, one in enumerate(names):
        for two in names[place_ + 1 :]:
            assert not parts[one] & parts[two]
    assert task.notes == ("6 texts of train that stand in the reported part too were left out",)
    assert 26 <= task.size("validation") <= 30
    assert task.size("train") + task.size("validation") + task.size("calibration") == len(rows) - 6


def test_marks_quotes_and_windows_lines(tmp_path, place):
    rows = [(f'" {text} ', label) for text, label in ROWS]
    write_table(tmp_path / "train.tsv", rows, mark="\ufeff", end="\r\n")
    write_table(tmp_path / "dev.tsv", [("it 's \"good", 1)])
    table = tsv.read(tmp_path / "train.tsv", ["sentence", "label"])
    assert table.columns["sentence"] == [text for text, _ in rows]
    assert table.columns["label"][:2] == ["0", "1"]
    assert table.line(0).endswith("train.tsv, line 2")
    assert task_of(tmp_path, place).size("test") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sentense\tlabel\na\t1\n", "no column 'sentence' in the first line; did you mean 'sentense'"),
        ("sentence\na\n", "no column 'label'"),
        (
            "sentence\tlabel\na good film\t1\nbad\t2\nx\t7\n",
            r"line 3: label 2 is outside the class range 0 to 1 .*1 more",
        ),
        ("sentence\tlabel\na good film\t-1\n", "line 2: label -1 is outside"),
        ("sentence\tlabel\na good film\tgood\n", "line 2: label 'good' is not a class number"),
        ("sentence\tlabel\na good film\t0_1\n", "line 2: label '0_1' is not a class number"),
        ("sentence\tlabel\na good film\t1\t1\n", "line 2: 3 fields, and the table has 2 columns"),
        ("sentence\tlabel\na good film\n", "line 2: 1 fields"),
        ("sentence\tlabel\n\na good film\t1\n", "line 2: an empty line"),
        ("sentence\tlabel\n \t1\n\n", "line 2: an empty text"),
        ("sentence\tlabel\n", "no rows below the header"),
        ("", "no column 'sentence'"),
        (b"sentence\tlabel\ncaf\xe9\t1\n", "not UTF-8 text .byte 18"),
    ],
)
@pytest.mark.parametrize("name", ["train.tsv", "dev.tsv"])
def test_a_bad_table_is_refused_with_its_line(tmp_path, place, text, message, name):
    for file in ("train.tsv", "dev.tsv"):
        write_table(tmp_path / file, ROWS[:40] if file == "train.tsv" else ROWS[40:])
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=rf"{name}.*{message}"):
        task_of(tmp_path, place)


def test_what_is_missing_is_said(tmp_path, glue, place):
    with pytest.raises(
        DataError, match=r"nowhere: no such folder; give data: a folder with train.tsv and dev.tsv"
    ):
        task_of(tmp_path / "nowhere", place)
    with pytest.raises(DataError, match=r"holds neither train.tsv nor SST-2/train.tsv"):
        task_of(tmp_path, place)
    write_table(tmp_path / "train.tsv", ROWS)
    with pytest.raises(DataError, match=r"dev.tsv: no such file"):
        task_of(tmp_path, place)
    with pytest.raises(DataError, match="needs the model's tokenizer"):
        lz.task("sst2", data=glue)
    with pytest.raises(RecipeError, match="unknown option 'max_lenght'; did you mean 'max_length'"):
        task_of(glue, place, max_lenght=3)


def test_from_the_hub(monkeypatch, place):
    """The library's own call, answered by a stand-in."""
    asked = []

    def load_dataset(repository, subset, *, split):
        asked.append((repository, subset, split))
        rows = ROWS[:50] if split == "train" else ROWS[50:]
        columns = {"sentence": [text for text, _ in rows], "label": [label for _, label in rows]}
        return types.SimpleNamespace(column_names=[*columns, "idx"], __getitem__=None, columns=columns)

    class Table(dict):
        column_names = ("sentence", "label", "idx")

    library = types.ModuleType("datasets")
    library.load_dataset = lambda *args, **more: Table(load_dataset(*args, **more).columns)
    monkeypatch.setitem(sys.modules, "datasets", library)
    task = lz.task("sst2", tokenizer=place)
    assert asked == [("nyu-mll/glue", "sst2", "train"), ("nyu-mll/glue", "sst2", "validation")]
    assert (task.size("test"), task.source) == (10, "nyu-mll/glue (sst2)")


def test_without_the_hubs_library(monkeypatch, place):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        DataError, match=r"no data was given, and datasets is not installed.*lianzhi\[data\].*give data"
    ):
        lz.task("sst2", tokenizer=place)


def test_batches_are_padded_to_their_longest_and_hold_every_text_once(glue, bert):
    task = task_of(glue, str(bert))
    lengths = task.splits["train"].tokens.lengths[task.splits["train"].rows]
    for options in ({}, {"epoch": 0, "seed": 3}, {"epoch": 1, "rank": 1, "world": 3}):
        seen = []
        for batch in task.batches("train", 16, **options):
            mask = batch.inputs["attention_mask"]
            assert list(batch.inputs) == ["input_ids", "attention_mask", "token_type_ids"]
            assert mask.shape[1] == mask.sum(1).max()
            assert torch.equal(mask.sum(1), torch.from_numpy(lengths[batch.ids]))
            assert (batch.inputs["input_ids"][mask == 0] == 0).all()
            assert (batch.inputs["input_ids"][:, 0] == 2).all()
            seen += batch.ids.tolist()
        assert len(seen) == len(set(seen)) == (90 if "world" in options else 288)


def test_the_order_is_a_function_of_seed_and_epoch(glue, place):
    task = task_of(glue, place)
    order = lambda **options: [batch.ids.tolist() for batch in task.batches("train", 16, **options)]  # noqa: E731
    assert order(epoch=1, seed=2) == order(epoch=1, seed=2)
    assert order(epoch=1, seed=2) != order(epoch=2, seed=2) != order(epoch=2, seed=3)
    whole = order(epoch=1)
    shares = [order(epoch=1, rank=rank, world=3) for rank in range(3)]
    assert whole == [one + two + three for one, two, three in zip(*shares, strict=True)]


def test_batches_of_like_length_have_less_padding(glue, place):
    sizes = {}
    for bucket in (True, False):
        task = task_of(glue, place, bucket=bucket)
        sizes[bucket] = sum(batch.inputs["input_ids"].numel() for batch in task.batches("train", 16, epoch=0))
    tokens = int(task.splits["train"].tokens.lengths[task.splits["train"].rows].sum())
    assert tokens <= sizes[True] < 1.15 * tokens < sizes[False]


def test_long_texts_are_cut_and_counted(glue, place):
    whole, cut = task_of(glue, place), task_of(glue, place, max_length=8)
    long = whole.splits["train"].tokens.lengths > 8
    assert long.any()
    assert int(cut.splits["train"].tokens.lengths.max()) == 8
    assert cut.notes[0] == f"{long.sum()} of 360 texts of train are longer than 8 tokens and were cut"
    assert whole.notes == ()
    assert cut.fingerprint() != whole.fingerprint()
    last = cut.splits["train"].tokens.row(int(np.flatnonzero(long)[0]))
    assert last[-1] == 3  # [SEP] stays at the end


def test_the_example_is_the_reported_text_of_median_length(glue, place):
    task = task_of(glue, place)
    lengths = sorted(task.splits["test"].tokens.lengths)
    assert task.example_inputs["input_ids"].shape == (1, lengths[(60 - 1) // 2])


def test_tokens_come_from_the_cache_unless_tokenizer_or_text_changed(glue, place, monkeypatch):
    first = task_of(glue, place)
    files = sorted((cache.folder() / "arrays").iterdir())
    assert len(files) == 4
    monkeypatch.setattr("lianzhi.tasks.tokens._encode", None)  # may not be called
    assert task_of(glue, place).fingerprint() == first.fingerprint()
    with pytest.raises(TypeError):
        task_of(glue, place, max_length=9)


def test_a_damaged_cache_is_made_again(glue, place):
    first = task_of(glue, place)
    for file in (cache.folder() / "arrays").iterdir():
        np.save(file, np.zeros((3, 3), np.int64))
    assert task_of(glue, place).fingerprint() == first.fingerprint()
    again = task_of(glue, place)
    assert texts(again, "test") == texts(first, "test")


def test_a_tiny_set_is_refused_rather_than_cut_into_nothing(tmp_path, place):
    write_sst2(tmp_path, train=4, dev=2)
    with pytest.raises(DataError, match="which leaves none to train on"):
        task_of(tmp_path, place, validation=2, calibration=2)
