"""GLUE's tasks, SNLI and XNLI in the formats in which they are published: what is read, left out, refused."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
from tiny_text import WORDS, sentences, write_table, write_tokenizer

import lianzhi as lz
from lianzhi.errors import DataError, RecipeError
from lianzhi.tasks.texts import retokenized, texts_of, with_train

FIRST = [text for text, _ in sentences(80, 5)]
SECOND = [text for text, _ in sentences(80, 6)]
CLASSES = [label for _, label in sentences(80, 5)]
NLI = ("entailment", "neutral", "contradiction")


@pytest.fixture
def place(tmp_path):
    return str(write_tokenizer(tmp_path / "model"))


def header(*names):
    return "\t".join(names)


def write(folder, name, rows, columns, **more):
    return write_table(folder / name, rows, header=header(*columns), **more)


def mrpc(folder, **more):
    rows = [
        (label, at, at + 1000, one, two)
        for at, (label, one, two) in enumerate(zip(CLASSES, FIRST, SECOND, strict=True))
    ]
    columns = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
    write(folder / "MRPC", "train.tsv", rows[:60], columns, mark="\ufeff", end="\r\n")
    write(folder / "MRPC", "dev.tsv", rows[60:], columns, mark="\ufeff")
    return folder


def test_mrpc_has_a_mark_and_pairs(tmp_path, place):
    task = lz.task("mrpc", data=mrpc(tmp_path), tokenizer=place, segments=True)
    assert (task.size("test"), task.labels) == (20, ["not_equivalent", "equivalent"])
    assert list(task.metrics) == ["accuracy", "f1", "precision", "recall", "matthews"]
    found = texts_of(task, "test")
    assert (found.texts, found.pairs) == (FIRST[60:], SECOND[60:])
    assert found.labels.tolist() == CLASSES[60:]
    batch = next(iter(task.batches("test", 20)))
    for row, (one, two) in enumerate(zip(FIRST[60:], SECOND[60:], strict=True)):
        wanted = task.preprocess.tokenizer.encode(one, two)
        mask = batch.inputs["attention_mask"][row].bool()
        assert batch.inputs["input_ids"][row][mask].tolist() == wanted.ids
        assert batch.inputs["token_type_ids"][row][mask].tolist() == wanted.type_ids


def test_pairs_keep_their_texts_under_another_tokenizer_and_training_split(tmp_path, place):
    task = lz.task("mrpc", data=mrpc(tmp_path), tokenizer=place)
    before = texts_of(task, "train")
    again = texts_of(retokenized(task, task.preprocess), "train")
    assert (again.texts, again.pairs) == (before.texts, before.pairs)
    made = with_train(task, ["a new film"], ["a new plot"], [1])
    assert texts_of(made, "train").pairs == ["a new plot"]
    swapped = with_train(task, [before.pairs[0], FIRST[60]], [before.texts[0], SECOND[60]], [1, 1])
    assert len(texts_of(swapped, "train")) == 1  # the second is a pair of dev; the first is no other pair
    with pytest.raises(DataError, match="is of pairs, and the new training texts are not"):
        with_train(task, ["a new film"], None, [1])


def test_cola_has_no_line_of_names(tmp_path, place):
    rows = [
        (f"gj0{at}", label, "" if label else "*", text)
        for at, (text, label) in enumerate(zip(FIRST, CLASSES, strict=True))
    ]
    for name, part in (("train.tsv", rows[:60]), ("dev.tsv", rows[60:])):
        write(tmp_path / "CoLA", name, part[1:], map(str, part[0]))
    task = lz.task("cola", data=tmp_path, tokenizer=place)
    assert task.size("test") == 20
    assert texts_of(task, "test").texts == FIRST[60:]
    assert task.metric == "matthews"
    assert lz.task("cola", data=tmp_path, tokenizer=place, metric="f1").metric == "f1"
    with pytest.raises(RecipeError, match="'cola' has no metric 'mathews'; did you mean 'matthews'"):
        lz.task("cola", data=tmp_path, tokenizer=place, metric="mathews")


@pytest.mark.parametrize(("name", "folder"), [("rte", "RTE"), ("qnli", "QNLI")])
def test_classes_written_as_words(tmp_path, place, name, folder):
    columns = ("index", *({"rte": ("sentence1", "sentence2")}.get(name, ("question", "sentence"))), "label")
    words = ["not_entailment" if label else "entailment" for label in CLASSES]
    rows = [(at, *row) for at, row in enumerate(zip(FIRST, SECOND, words, strict=True))]
    write(tmp_path / folder, "train.tsv", rows[:60], columns)
    file = write(tmp_path / folder, "dev.tsv", rows[60:], columns)
    task = lz.task(name, data=tmp_path, tokenizer=place)
    assert texts_of(task, "test").labels.tolist() == CLASSES[60:]
    file.write_text(file.read_text().replace("not_entailment", "not_entailed"))
    with pytest.raises(DataError, match="label 'not_entailed' is unknown; did you mean 'not_entailment'"):
        lz.task(name, data=tmp_path, tokenizer=place)


def test_wnli(tmp_path, place):
    rows = [(at, *row) for at, row in enumerate(zip(FIRST, SECOND, CLASSES, strict=True))]
    for name, part in (("train.tsv", rows[:60]), ("dev.tsv", rows[60:])):
        write(tmp_path, name, part, ("index", "sentence1", "sentence2", "label"))
    task = lz.task("wnli", data=tmp_path, tokenizer=place)
    assert texts_of(task, "test").labels.tolist() == CLASSES[60:]


def stsb(folder, scores):
    columns = ("index", "genre", "filename", "year", "old_index", "source1", "source2")
    columns = (*columns, "sentence1", "sentence2", "score")
    rows = [
        (at, "main", "f", "2012", at, "none", "none", one, two, score)
        for at, (one, two, score) in enumerate(zip(FIRST, SECOND, scores, strict=True))
    ]
    write(folder / "STS-B", "train.tsv", rows[:60], columns)
    write(folder / "STS-B", "dev.tsv", rows[60:], columns)
    return folder


def test_stsb_is_a_score(tmp_path, place):
    scores = [f"{at % 26 / 5:.3f}" for at in range(80)]
    task = lz.task("stsb", data=stsb(tmp_path, scores), tokenizer=place)
    assert (task.scores, task.num_classes, task.labels) == (True, 1, None)
    assert list(task.metrics) == ["pearson", "spearman"]
    batch = next(iter(task.batches("test", 20)))
    assert batch.labels.dtype == torch.float32
    assert batch.labels.tolist() == pytest.approx([float(score) for score in scores[60:]])
    outputs = torch.zeros(20, 1)
    assert task.loss(outputs, batch.labels).item() == pytest.approx(float((batch.labels**2).mean()))
    means = [texts_of(task, name).labels.mean() for name in ("train", "validation", "calibration")]
    assert max(means) - min(means) < 0.8  # low and high scores in every cut
    changed = with_train(task, ["a new film"], ["a new plot"], [2.5])
    assert texts_of(changed, "train").labels.tolist() == [2.5]


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ("5.2", "line 8: score 5.2 is outside 0 to 5"),
        ("nan", "line 8: score nan is outside 0 to 5"),
        ("much", "line 8: score 'much' is not a number"),
    ],
)
def test_a_score_that_is_none_is_refused(tmp_path, place, score, message):
    scores = [f"{at % 26 / 5:.3f}" for at in range(80)]
    scores[6] = score
    with pytest.raises(DataError, match=f"train.tsv, {message}"):
        lz.task("stsb", data=stsb(tmp_path, scores), tokenizer=place)


def test_qqp_s_broken_rows_are_left_out_and_said(tmp_path, place):
    columns = ("id", "qid1", "qid2", "question1", "question2", "is_duplicate")
    rows = [(at, 1, 2, *row) for at, row in enumerate(zip(FIRST, SECOND, CLASSES, strict=True))]
    broken = [
        (7, 1, 2, "a film"),
        ("and a plot", "1"),
        (),
        (8, 1, 2, "a film", " ", 1),
        (9, 1, 2, "", "a film", 0),
    ]
    write(tmp_path / "QQP", "train.tsv", [*rows[:30], *broken, *rows[30:60]], columns)
    write(tmp_path / "QQP", "dev.tsv", rows[60:], columns)
    task = lz.task("qqp", data=tmp_path, tokenizer=place)
    assert task.notes[:2] == (
        "3 rows of train were left out: the line is broken",
        "2 rows of train were left out: a text is empty",
    )
    assert sum(task.size(name) for name in ("train", "validation", "calibration")) == 60
    (tmp_path / "QQP" / "dev.tsv").write_text("\t".join(columns) + "\n1\t2\t3\n")
    with pytest.raises(DataError, match=r"dev.tsv: no rows"):
        lz.task("qqp", data=tmp_path, tokenizer=place)


def mnli_rows(first, labels):
    """Rows of a table with parse trees before the sentences and annotators' labels before the last."""
    return [
        (at, 1, 2, "fiction", "( a )", "( b )", "(A)", "(B)", one, two, "neutral", label)
        for at, (one, two, label) in enumerate(zip(first, SECOND, labels, strict=False))
    ]


MNLI = (
    *("index", "promptID", "pairID", "genre", "sentence1_binary_parse", "sentence2_binary_parse"),
    *("sentence1_parse", "sentence2_parse", "sentence1", "sentence2", "label1", "gold_label"),
)


def test_mnli_has_two_parts_that_are_reported(tmp_path, place):
    labels = [NLI[at % 3] for at in range(60)]
    folder = tmp_path / "MNLI"
    write(folder, "train.tsv", mnli_rows(FIRST[:60], labels), MNLI)
    write(folder, "dev_matched.tsv", mnli_rows(FIRST[60:70], [*labels[:9], "-"]), MNLI)
    write(folder, "dev_mismatched.tsv", mnli_rows(FIRST[70:], labels), MNLI)
    task = lz.task("mnli", data=tmp_path, tokenizer=place)
    assert task.labels == list(NLI)
    assert (task.reported, task.also, task.size("test"), task.size("mismatched")) == (
        "test",
        ("mismatched",),
        9,
        10,
    )
    assert task.notes[0] == "1 rows of test were left out: there is no label"
    assert texts_of(task, "mismatched").labels.tolist() == [at % 3 for at in range(10)]
    found = lz.measure.evaluate(
        lambda inputs: torch.eye(3)[[0] * len(inputs["input_ids"])], task, split="mismatched"
    )
    assert (found.split, found.value) == ("mismatched", 0.4)
    (folder / "dev_mismatched.tsv").unlink()
    with pytest.raises(DataError, match=r"dev_mismatched.tsv: no such file"):
        lz.task("mnli", data=tmp_path, tokenizer=place)


def test_snli_as_its_authors_publish_it(tmp_path, place):
    columns = (
        "gold_label",
        "sentence1_binary_parse",
        "sentence1",
        "sentence2",
        "captionID",
        "label1",
        "label2",
    )
    rows = [
        (
            NLI[at % 3] if at % 10 else "-",
            "( a )",
            one,
            two,
            "c",
            NLI[0],
        )  # the later annotators' are not there
        for at, (one, two) in enumerate(zip(FIRST, SECOND, strict=True))
    ]
    for name, part in (("train", rows[:60]), ("dev", rows[60:70]), ("test", rows[70:])):
        write(tmp_path / "snli_1.0", f"snli_1.0_{name}.txt", part, columns)
    task = lz.task("snli", data=tmp_path, tokenizer=place, calibration=5)
    assert {name: task.size(name) for name in task.splits} == {
        "train": 49,
        "validation": 9,
        "calibration": 5,
        "test": 9,
    }
    assert texts_of(task, "validation").texts == FIRST[61:70]


def test_xnli_takes_one_language(tmp_path, place):
    rows = [
        (*pair, label) for *pair, label in zip(FIRST, SECOND, (NLI[at % 3] for at in range(80)), strict=True)
    ]
    train = [(one, two, label.replace("contradiction", "contradictory")) for one, two, label in rows[:60]]
    write(tmp_path / "XNLI-MT-1.0" / "multinli", "multinli.train.zh.tsv", train, ("premise", "hypo", "label"))
    columns = ("language", "gold_label", "sentence1", "sentence2")
    both = [(language, label, one, two) for one, two, label in rows[60:] for language in ("de", "zh")]
    write(tmp_path / "XNLI-1.0", "xnli.dev.tsv", both[:20], columns)
    write(tmp_path / "XNLI-1.0", "xnli.test.tsv", both[20:], columns)
    task = lz.task("xnli", data=tmp_path, tokenizer=place, language="zh", calibration=5)
    assert {name: task.size(name) for name in task.splits} == {
        "train": 55,
        "validation": 10,
        "calibration": 5,
        "test": 10,
    }
    assert texts_of(task, "test").labels.tolist() == [at % 3 for at in range(70, 80)]
    with pytest.raises(DataError, match=r"holds neither XNLI-MT-1\.0/multinli/multinli\.train\.en\.tsv"):
        lz.task("xnli", data=tmp_path, tokenizer=place)
    with pytest.raises(RecipeError, match="language"):
        lz.task("xnli", data=tmp_path, tokenizer=place, language="xx")


HUB = {
    "cola": (("sentence",), ["validation"], "nyu-mll/glue"),
    "mrpc": (("sentence1", "sentence2"), ["validation"], "nyu-mll/glue"),
    "qnli": (("question", "sentence"), ["validation"], "nyu-mll/glue"),
    "qqp": (("question1", "question2"), ["validation"], "nyu-mll/glue"),
    "stsb": (("sentence1", "sentence2"), ["validation"], "nyu-mll/glue"),
    "mnli": (("premise", "hypothesis"), ["validation_matched", "validation_mismatched"], "nyu-mll/glue"),
    "snli": (("premise", "hypothesis"), ["validation", "test"], "stanfordnlp/snli"),
}


def hub_columns(texts, start, stop):
    columns = dict(zip(texts, (FIRST[start:stop], SECOND[start:stop]), strict=False))
    return columns | {"label": [at % 2 for at in range(start, stop)], "idx": list(range(start, stop))}


@pytest.mark.parametrize("name", HUB)
def test_parquet_as_the_hub_has_it(tmp_path, place, name):
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts, others, _ = HUB[name]
    subset = {"snli": "plain_text"}.get(name, name)
    (tmp_path / subset).mkdir()
    spans = {"train": (0, 50), others[0]: (50, 60), others[-1]: (60, 80)}
    for split, (start, stop) in spans.items():
        half = (start + stop) // 2
        for number, span in enumerate(((start, half), (half, stop))):
            table = pa.table(hub_columns(texts, *span))
            pq.write_table(table, tmp_path / subset / f"{split}-0000{number}-of-00002.parquet")
    task = lz.task(name, data=tmp_path, tokenizer=place)
    found = texts_of(task, task.reported)
    start, stop = spans[others[-1] if name == "snli" else others[0]]
    assert found.texts == FIRST[start:stop]
    assert found.labels.tolist() == [at % 2 for at in range(start, stop)]
    for file in (tmp_path / subset).glob(f"{others[0]}*"):
        file.unlink()
    with pytest.raises(DataError, match=rf"no {others[0]}\*.parquet beside the other part"):
        lz.task(name, data=tmp_path / subset, tokenizer=place)


@pytest.mark.parametrize("name", HUB)
def test_the_hub_itself(monkeypatch, place, name):
    """The library's own call, answered by a stand-in."""
    texts, others, repository = HUB[name]
    spans = {"train": (0, 50), others[0]: (50, 60), others[-1]: (60, 80)}
    asked = []

    class Table(dict):
        column_names = (*texts, "label", "idx")

    def load_dataset(place, subset, *, split):
        asked.append((place, split))
        return Table(hub_columns(texts, *spans[split]))

    library = types.ModuleType("datasets")
    library.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", library)
    task = lz.task(name, tokenizer=place)
    assert asked == [(repository, split) for split in ("train", *others)]
    assert task.size("test") == (20 if name in ("snli", *(n for n in HUB if len(HUB[n][1]) == 1)) else 10)


def test_a_damaged_parquet_is_named(tmp_path, place):
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "validation.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"train.parquet: damaged, or no parquet file"):
        lz.task("rte", data=tmp_path, tokenizer=place)


def test_the_words_are_known():
    """Else every token would be [UNK], and the comparisons above would say little."""
    assert {word for text in (*FIRST, *SECOND) for word in text.split()} <= set(WORDS)
    assert 0.3 < np.mean(CLASSES) < 0.7


@pytest.mark.parametrize("value", [1.7, float("nan"), float("inf")])
def test_parquet_labels_that_are_no_class_numbers(tmp_path, place, value):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for split, labels in (("train", [0.0, 1.0, value]), ("validation", [0.0, 1.0, 0.0])):
        table = pa.table({"sentence": FIRST[:3], "label": labels})
        pq.write_table(table, tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match=rf"train\.parquet, row 2: label {value} is not a class number"):
        lz.task("sst2", data=tmp_path, tokenizer=place)
