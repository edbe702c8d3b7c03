"""The task `text`: what it reads, and how it finds columns and classes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from own_tables import NAMES, TEXTS, rows, write
from tiny_text import write_tokenizer

import lianzhi as lz
from lianzhi.errors import DataError, RecipeError
from lianzhi.tasks.text_columns import columns_of
from lianzhi.tasks.text_labels import Classes
from lianzhi.tasks.texts import texts_of


@pytest.fixture
def place(tmp_path):
    return str(write_tokenizer(tmp_path / "model"))


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl", "json", "parquet"])
def test_files_of_three_parts(tmp_path, place, kind):
    write(tmp_path / f"train.{kind}", rows(0, 80))
    write(tmp_path / f"dev.{kind}", rows(80, 100))
    write(tmp_path / f"test.{kind}", rows(100, 120))
    task = lz.task("text", data=tmp_path, tokenizer=place)
    assert task.labels == ["bad", "good"]
    assert {name: task.size(name) for name in task.splits} == {
        "train": 72,
        "validation": 20,
        "calibration": 8,
        "test": 20,
    }
    for name, start in (("validation", 80), ("test", 100)):
        found = texts_of(task, name)
        assert found.texts == TEXTS[start : start + 20]
        assert [task.labels[number] for number in found.labels] == NAMES[start : start + 20]
    assert list(task.metrics) == ["accuracy", "f1", "precision", "recall", "matthews"]


def test_one_file_is_cut_into_all_parts(tmp_path, place):
    file = write(tmp_path / "reviews.csv", rows(0, 120))
    task = lz.task("text", data=file, tokenizer=place)
    assert {name: task.size(name) for name in task.splits} == {
        "train": 84,
        "validation": 12,
        "calibration": 12,
        "test": 12,
    }
    texts = [text for name in task.splits for text in texts_of(task, name).texts]
    assert sorted(texts) == sorted(TEXTS)
    small = lz.task("text", data=file, tokenizer=place, test=30, validation=0, calibration=0)
    assert {name: small.size(name) for name in small.splits} == {"train": 90, "test": 30}


def test_of_two_parts_the_second_is_reported(tmp_path, place):
    write(tmp_path / "train.tsv", rows(0, 80))
    write(tmp_path / "val.tsv", rows(80, 120))
    task = lz.task("text", data=tmp_path, tokenizer=place)
    assert (task.reported, task.size("test"), task.size("validation")) == ("test", 40, 8)


def test_texts_of_later_parts_leave_the_earlier_ones(tmp_path, place):
    write(tmp_path / "train.tsv", rows(0, 90))
    write(tmp_path / "dev.tsv", rows(70, 110))
    write(tmp_path / "test.tsv", rows(100, 120))
    task = lz.task("text", data=tmp_path, tokenizer=place, calibration=0)
    assert [task.size(name) for name in ("train", "validation", "test")] == [70, 30, 20]
    assert task.notes == (
        "10 texts of validation that stand in the reported part too were left out",
        "20 texts of train that stand in another part too were left out",
    )


def test_quotes_commas_and_line_breaks_of_csv(tmp_path, place):
    odd = ['a "good", warm film', "a film\nof two lines", "a 'good' film"]
    table = rows(0, 60) + [{"id": 0, "text": text, "label": "good"} for text in odd]
    write(tmp_path / "train.csv", table)
    write(tmp_path / "test.csv", [{"id": 0, "text": text, "label": "bad"} for text in odd])
    task = lz.task("text", data=tmp_path, tokenizer=place)
    assert texts_of(task, "test").texts == odd
    assert task.notes == ("3 texts of train that stand in the reported part too were left out",)


def test_columns_by_name_and_pairs(tmp_path, place):
    table = [{"one": TEXTS[at], "two": TEXTS[-at], "stars": at % 5 + 1} for at in range(60)]
    file = write(tmp_path / "pairs.jsonl", table)
    options = {"text": "one", "second": "two", "label": "stars"}
    task = lz.task("text", data=file, tokenizer=place, **options)
    assert task.labels == ["1", "2", "3", "4", "5"]
    assert task.preprocess.pairs
    assert list(task.metrics)[:2] == ["accuracy", "macro_f1"]
    found = texts_of(task, "train")
    for text, second, label in zip(found.texts, found.pairs, found.labels, strict=True):
        at = TEXTS.index(text)
        assert (second, label) == (TEXTS[-at], at % 5)
    with pytest.raises(DataError, match=r"no column 'star'; did you mean 'stars'\?"):
        lz.task("text", data=file, tokenizer=place, **{**options, "label": "star"})


def test_usual_names_of_columns():
    options = {"text": None, "second": None, "label": None, "score": False}
    found = columns_of(["idx", "question1", "question2", "label"], "t", **options)
    assert (found.text, found.second, found.label) == ("question1", "question2", "label")
    with pytest.raises(
        DataError, match=r"several columns may be the text \('text', 'premise', 'hypothesis', 'label'\)"
    ):
        columns_of(["text", "premise", "hypothesis", "label"], "t", **options)
    with pytest.raises(DataError, match=r"which column is the text\? It has 'body', 'label'; say text: NAME"):
        columns_of(["body", "label"], "t", **options)
    with pytest.raises(DataError, match=r"which column is the label\? It has 'text', 'score'"):
        columns_of(["text", "score"], "t", **options)
    assert columns_of(["text", "score"], "t", **{**options, "score": True}).label == "score"
    with pytest.raises(DataError, match="say which is the first: text: NAME"):
        columns_of(["text", "b", "label"], "t", **{**options, "second": "b"})


def test_a_table_without_names(tmp_path, place):
    lines = [f"{NAMES[at]}\t{at}\t{TEXTS[at]}" for at in range(60)]
    file = tmp_path / "all.tsv"
    file.write_text("\n".join(lines))
    task = lz.task("text", data=file, tokenizer=place, header=["label", "id", "text"])
    assert sum(task.size(name) for name in task.splits) == 60
    assert task.labels == ["bad", "good"]


def test_names_of_classes(tmp_path, place):
    file = write(tmp_path / "all.jsonl", [{"text": TEXTS[at], "label": at % 3} for at in range(90)])
    named = lz.task("text", data=file, tokenizer=place, labels=["red", "green", "blue"])
    assert named.labels == ["red", "green", "blue"]
    assert named.notes == ()
    more = lz.task("text", data=file, tokenizer=place, labels=["red", "green", "blue", "grey"])
    assert more.notes == ("train has no text of the class 'grey'",)
    found = texts_of(named, "test")
    assert [TEXTS.index(text) % 3 for text in found.texts] == found.labels.tolist()
    with pytest.raises(DataError, match=r"line 6: label '2' is unknown"):
        lz.task(
            "text",
            data=write(
                tmp_path / "all.tsv", [{"text": TEXTS[at], "label": "01012"[at % 5]} for at in range(90)]
            ),
            tokenizer=place,
            labels=["0", "1"],
        )


@pytest.mark.parametrize(
    ("values", "names", "wanted", "numbers"),
    [
        (["b", "a", "c"], None, ("a", "b", "c"), [1, 0, 2]),
        ([10, 9, 9.0], None, ("9", "10"), [1, 0, 0]),
        ([True, False], None, ("false", "true"), [1, 0]),
        (["1", "0"], ("no", "yes"), ("no", "yes"), [1, 0]),
        (["yes", "no"], ("no", "yes"), ("no", "yes"), [1, 0]),
        (["1", "2"], ("1", "2"), ("1", "2"), [0, 1]),
        (["a"], ("a", "b"), ("a", "b"), [0]),
        (["-1", "3", "1"], None, ("-1", "1", "3"), [0, 2, 1]),
        (["--5", "2"], None, ("2", "--5"), [1, 0]),
    ],
)
def test_how_labels_are_written(values, names, wanted, numbers):
    line = lambda row: f"line {row}"  # noqa: E731
    found = Classes.of(values, line, names)
    assert (found.names, found.numbers(values, line).tolist()) == (wanted, numbers)


def test_a_folder_as_the_library_saves_it(tmp_path, place):
    """Arrow streams with the class names in the table's own description, as `Dataset.save_to_disk` writes them."""
    import pyarrow as pa

    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
    }
    told = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    for part, (start, stop) in {"train": (0, 90), "test": (90, 120)}.items():
        for number in range(2):
            table = pa.table(
                {
                    "text": TEXTS[start + number : stop : 2],
                    "label": [at % 2 for at in range(start + number, stop, 2)],
                }
            )
            file = tmp_path / part / f"data-0000{number}-of-00002.arrow"
            file.parent.mkdir(exist_ok=True)
            with (
                pa.OSFile(str(file), "wb") as sink,
                pa.ipc.new_stream(sink, table.replace_schema_metadata(told).schema) as stream,
            ):
                stream.write_table(table.replace_schema_metadata(told))
        (tmp_path / part / "state.json").write_text("{}")
        (tmp_path / part / "cache-0123456789abcdef.arrow").write_text("what Dataset.map leaves here")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    task = lz.task("text", data=tmp_path, tokenizer=place)
    assert task.labels == ["no", "yes"]
    found = texts_of(task, "test")
    assert found.texts == TEXTS[90:120:2] + TEXTS[91:120:2]
    assert found.labels.tolist() == [0] * 15 + [1] * 15
    other = lz.task("text", data=tmp_path, tokenizer=place, labels=["否", "是"])
    assert other.labels == ["否", "是"]
    assert np.array_equal(texts_of(other, "test").labels, found.labels)
    turned = lz.task("text", data=tmp_path, tokenizer=place, labels=["yes", "no"])
    assert np.array_equal(texts_of(turned, "test").labels, 1 - found.labels)
    alone = lz.task("text", data=tmp_path / "train", tokenizer=place)
    assert sum(alone.size(name) for name in alone.splits) == 90


def shard(file: Path, rows: slice, names: list[str] | None) -> None:
    """Some of the texts as Parquet, with labels as numbers of `names`, or as words."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels = NAMES[rows] if names is None else [names.index(name) for name in NAMES[rows]]
    table = pa.table({"text": TEXTS[rows], "label": labels})
    if names is not None:
        told = {"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}}
        table = table.replace_schema_metadata({b"huggingface": json.dumps(told).encode()})
    pq.write_table(table, file)


def test_shards_that_number_their_classes_otherwise(tmp_path, place):
    names = sorted(set(NAMES))
    for folder, second in (("turned", names[::-1]), ("words", None), ("other", [*names, "third"])):
        (tmp_path / folder).mkdir()
        shard(tmp_path / folder / "train-00000-of-00002.parquet", slice(0, 60), names)
        shard(tmp_path / folder / "train-00001-of-00002.parquet", slice(60, 120), second)
    task = lz.task("text", data=tmp_path / "turned", tokenizer=place)
    for part in task.splits:
        found = texts_of(task, part)
        assert [task.labels[label] for label in found.labels] == [
            NAMES[TEXTS.index(text)] for text in found.texts
        ]
    for folder in ("words", "other"):
        with pytest.raises(DataError, match=r"train-00001-of-00002.parquet: 'label' has .* the same ones"):
            lz.task("text", data=tmp_path / folder, tokenizer=place)


def test_a_shard_that_is_not_there_is_named(tmp_path, place):
    names = sorted(set(NAMES))
    for number in (0, 2):
        shard(tmp_path / f"train-0000{number}-of-00003.parquet", slice(40 * number, 40 * number + 40), names)
    alone = tmp_path / "alone"
    alone.mkdir()
    shard(alone / f"train-00000-of-{10**12}.parquet", slice(0, 40), names)
    with pytest.raises(DataError, match=r"shard 1 of 1000000000000 "):
        lz.task("text", data=alone, tokenizer=place)
    with pytest.raises(DataError, match=r"shard 1 of 3 \(from 0\) is not there"):
        lz.task("text", data=tmp_path, tokenizer=place)


def test_a_damaged_arrow_file_is_refused_and_not_read_beyond_its_end(tmp_path, place):
    import pyarrow as pa

    table = pa.table({"text": TEXTS, "label": NAMES})
    whole = tmp_path / "whole.arrow"
    with pa.OSFile(str(whole), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    known = whole.read_bytes()
    assert sum(split.size for split in lz.task("text", data=whole, tokenizer=place).splits.values()) == 120
    offsets = known.index(b"".join(at.to_bytes(4, "little") for at in (0, len(TEXTS[0]))))
    (tmp_path / "far.arrow").write_bytes(known[: offsets + 8] + b"\xff\xff\xff\x7f" + known[offsets + 12 :])
    (tmp_path / "short.arrow").write_bytes(known[: len(known) // 2])
    with (
        pa.OSFile(str(tmp_path / "parts.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as stream,
    ):
        for start in range(0, 120, 20):
            stream.write_table(table.slice(start, 20))
    parts = (tmp_path / "parts.arrow").read_bytes()
    ends = [
        at for at in range(8, len(parts), 8) if parts[at : at + 4] == b"\xff" * 4
    ]  # where each batch begins
    (tmp_path / "cut.arrow").write_bytes(parts[: ends[3]])
    for name in ("far", "short", "cut"):
        with pytest.raises(DataError, match=rf"{name}.arrow: damaged, or no arrow file"):
            lz.task("text", data=tmp_path / f"{name}.arrow", tokenizer=place)


def test_scores(tmp_path, place):
    table = [{"text": TEXTS[at], "score": at / 10 - 2} for at in range(100)]
    task = lz.task("text", data=write(tmp_path / "all.csv", table), tokenizer=place, score=True)
    assert (task.scores, task.metric, task.labels) == (True, "pearson", None)
    batch = next(iter(task.batches("test", 10)))
    assert batch.labels.dtype == torch.float32
    assert [TEXTS.index(text) / 10 - 2 for text in texts_of(task, "test").texts] == pytest.approx(
        batch.labels.tolist()
    )
    with pytest.raises(DataError, match=r"line 3: label -1.9 is a number with a fraction; set score: true"):
        lz.task("text", data=tmp_path / "all.csv", tokenizer=place, label="score")
    with pytest.raises(RecipeError, match="leave out one of them"):
        lz.task("text", data=tmp_path / "all.csv", tokenizer=place, score=True, labels=["a", "b"])
    with pytest.raises(RecipeError, match="labels: 'a' stands twice"):
        lz.task("text", data=tmp_path / "all.csv", tokenizer=place, labels=["a", "b", "a"])
    with pytest.raises(RecipeError, match="labels: no class is named"):
        lz.task("text", data=tmp_path / "all.csv", tokenizer=place, labels=[])


def test_a_document_of_any_length_is_read(tmp_path, place):
    """Python's csv has an end at 131,072 characters."""
    limit = csv.field_size_limit()
    table = [*rows(0, 60), {"id": 60, "text": "a good film, " * 20_000, "label": "good"}]
    task = lz.task("text", data=write(tmp_path / "all.csv", table), tokenizer=place)
    assert any("longer than 128 tokens and were cut" in note for note in task.notes)
    assert csv.field_size_limit() == limit


def test_only_a_test_part_can_be_evaluated(tmp_path, place):
    write(tmp_path / "test.csv", rows(0, 40))
    task = lz.task("text", data=tmp_path, tokenizer=place, labels=["bad", "good"])
    assert (list(task.splits), task.reported) == (["test"], "test")
    found = lz.measure.evaluate(lambda inputs: torch.eye(2)[[1] * len(inputs["input_ids"])], task)
    assert found.metrics["recall"] == 1


def test_long_texts_are_cut_and_counted(tmp_path, place):
    file = write(tmp_path / "all.csv", rows(0, 120))
    task = lz.task("text", data=file, tokenizer=place, max_length=6)
    lengths = [len(task.preprocess.tokenizer.encode(text).ids) for text in TEXTS]
    whole = lz.task("text", data=file, tokenizer=place)
    long = int((whole.splits["train"].tokens.lengths > 6).sum())
    assert max(lengths) == 6
    assert 0 < long < 120
    assert task.notes == (f"{long} of 120 texts of train are longer than 6 tokens and were cut",)


def test_chinese_texts(tmp_path):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words = {word: at for at, word in enumerate(["[PAD]", "[UNK]", *"好坏的电影很不看故事演员"])}
    made = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(handle_chinese_chars=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    (tmp_path / "zh").mkdir()
    made.save(str(tmp_path / "zh" / "tokenizer.json"))
    table = [
        {
            "text": f"{'很' * (at % 7)}{'好' if at % 2 else '坏'}的{'电影' if at % 3 else '故事'}{'不' * (at // 14)}",
            "label": "好" if at % 2 else "坏",
        }
        for at in range(84)
    ]
    task = lz.task("text", data=write(tmp_path / "all.jsonl", table), tokenizer=str(tmp_path / "zh"))
    assert task.labels == sorted(["好", "坏"])
    first = texts_of(task, "test").texts[0]
    batch = next(iter(task.batches("test", 1)))
    assert batch.inputs["input_ids"][0].tolist() == [words[sign] for sign in first]
