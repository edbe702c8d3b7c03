"""What the task `text` refuses, with the file, the line and the way out."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_tables import rows, write
from tiny_text import write_tokenizer

import lianzhi as lz
from lianzhi.errors import DataError
from lianzhi.tasks.recognize import explained


@pytest.fixture
def place(tmp_path):
    return str(write_tokenizer(tmp_path / "model"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.jsonl", '{"text": "a film", "label": "bad"}\n{"text": "a film"\n', "line 2: not JSON"),
        ("train.jsonl", '{"text": "a film", "label": "bad"}\n\n["a"]\n', "line 3: a list, and an object"),
        ("train.jsonl", '{"text": "a film", "label": "bad"}\n{"text": "a film"}\n', "line 2: no key 'label'"),
        ("train.jsonl", '{"text": 7, "label": "bad"}\n', "line 1: 'text' is a int, 7; a text is expected"),
        ("train.jsonl", '{"text": null, "label": "bad"}\n', "line 1: 'text' is missing"),
        ("train.jsonl", '{"text": "a", "label": null}\n', "line 1: no label"),
        ("train.jsonl", '{"text": "a", "label": ["b"]}\n', "line 1: the label is a list"),
        (
            "train.jsonl",
            '{"text": "a", "label": "b"}\n{"text": "\\ud83d", "label": "c"}',
            "line 2: 'text' holds half a",
        ),
        ("train.jsonl", "\n", "no rows; an empty part"),
        ("train.csv", 'text,label\n"a film",bad\n"a "film",bad\n', "line 3: broken"),
        (
            "train.csv",
            "text,label\na film,bad\na, film,bad\n",
            "line 3: 3 fields, .* quote a text that holds a comma",
        ),
        ("train.csv", 'text,label\n"a\nfilm",bad\na\n', "line 4: 1 fields"),
        ("train.csv", "text,label\n", "no rows below the header"),
        ("train.csv", "", "an empty file; .* the names of the columns"),
        ("train.tsv", "\n", "an empty first line; .* the names of the columns"),
        (
            "train.tsv",
            "text\tid\ttext\tlabel\na\tb\tc\td\n",
            "the column 'text' stands twice in the first line",
        ),
        ("train.tsv", "text\tlabel\na film\tbad\na plot\tnan\n", "line 3: label nan is no finite number"),
        ("train.csv", "text,label\na film,bad\n ,good\n", "line 3: an empty text"),
        ("train.csv", "text,label\na film,bad\na plot,\n", "line 3: no label"),
        ("train.csv", "text,label\na film,bad\na plot,bad\n", "all labels are 'bad'"),
        ("train.csv", b"text,label\ncaf\xe9,bad\n", "not UTF-8"),
        ("train.tsv", "text\tlabel\na film\tbad\na\tb\tc\n", "line 3: 3 fields"),
        (
            "train.tsv",
            "text\tlabel\na film\tbad\n\na plot\tgood\n",
            "line 3: an empty line, .* or take it out",
        ),
        ("train.tsv", "text\tlabel\r\n\r\na plot\tgood\r\n", "line 2: an empty line"),
        ("train.tsv", "text\tlabel\n\n\n", "no rows below the header"),
        ("train.parquet", "PAR", "damaged, or no parquet file"),
        ("test.csv", "text,label\na film,fine\n", "line 2: label 'fine' is unknown; known: bad, good"),
        ("test.csv", "text,label\na film,godd\n", "line 2: label 'godd' is unknown; did you mean 'good'"),
        ("test.csv", "text,class\na film,good\n", "no column 'label'"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, place, name, text, message):
    if not name.startswith("train"):
        write(tmp_path / "train.csv", rows(0, 60))
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=rf"{name}.*{message}"):
        lz.task("text", data=tmp_path, tokenizer=place)


@pytest.mark.parametrize(
    ("written", "said"),
    [("1_000", "not a number"), ("1e40", "not finite"), ("inf", "not finite"), ("nan", "not a finite")],
)
def test_what_is_no_score(tmp_path, place, written, said):
    write(tmp_path / "train.tsv", [{"text": "a film", "score": "1"}, {"text": "a plot", "score": written}])
    with pytest.raises(DataError, match=rf"line 3: score .*{said}"):
        lz.task("text", data=tmp_path, tokenizer=place, score=True)


def test_a_table_without_rows_is_refused_whatever_its_kind(tmp_path, place):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())}),
        tmp_path / "train.parquet",
    )
    with pytest.raises(DataError, match=r"train\.parquet: no rows; an empty part cannot be used"):
        lz.task("text", data=tmp_path, tokenizer=place)


def test_a_file_that_is_no_table_is_not_printed_whole(tmp_path, place):
    """A file that ends lines in another way has one line, which holds all of its text."""
    (tmp_path / "train.tsv").write_bytes(b"text\tlabel\r" + b"a film of words\tbad\r" * 4000)
    with pytest.raises(DataError, match="which column is the label") as caught:
        lz.task("text", data=tmp_path, tokenizer=place)
    assert len(str(caught.value)) < 1000


def test_two_columns_of_a_pair_are_two(tmp_path, place):
    write(tmp_path / "train.csv", rows(0, 60))
    with pytest.raises(DataError, match="second: 'text' is the first text as well"):
        lz.task("text", data=tmp_path, tokenizer=place, text="text", second="text")


def test_files_that_are_not_there_or_too_many(tmp_path, place):
    with pytest.raises(DataError, match=r"task 'text': no data was given; give data: a file \(.tsv, .csv"):
        lz.task("text", tokenizer=place)
    write(tmp_path / "train.csv", rows(0, 60))
    write(tmp_path / "train.tsv", rows(0, 60))
    with pytest.raises(
        DataError, match=r"several files may be the train part: train.csv, train.tsv; say which with files"
    ):
        lz.task("text", data=tmp_path, tokenizer=place)
    chosen = lz.task("text", data=tmp_path, tokenizer=place, files={"train": "train.tsv"})
    assert sum(chosen.size(name) for name in chosen.splits) == 60
    with pytest.raises(DataError, match=r"test.tsv: no such file; mend the option 'files'"):
        lz.task("text", data=tmp_path, tokenizer=place, files={"train": "train.tsv", "test": "test.tsv"})
    (tmp_path / "all.xlsx").write_text("x")
    with pytest.raises(DataError, match=r"all.xlsx: of an unknown kind"):
        lz.task("text", data=tmp_path / "all.xlsx", tokenizer=place)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no file of a part"):
        lz.task("text", data=tmp_path / "empty", tokenizer=place)


def test_names_of_columns_that_a_file_has_itself_are_not_given_again(tmp_path, place):
    """Read as a row, the line of names was a text of a class of its own."""
    header = ["text", "label"]
    for name in ("train.csv", "train.tsv"):
        file = write(tmp_path / name, [{"text": row["text"], "label": row["label"]} for row in rows(0, 40)])
        with pytest.raises(
            DataError, match=rf"{name}: its first line names the columns .*leave 'header' out"
        ):
            lz.task("text", data=file, tokenizer=place, header=header)
    file = write(tmp_path / "train.jsonl", rows(0, 40))
    with pytest.raises(DataError, match=r"train.jsonl: 'header' names the columns of a TSV or CSV file"):
        lz.task("text", data=file, tokenizer=place, header=header)


def test_of_labels_by_number_the_wrong_one_is_named(tmp_path, place):
    """One wrong number among hundreds of right ones does not make the right ones wrong."""
    table = [{"text": row["text"], "label": str(int(row["label"] == "good"))} for row in rows(0, 60)]
    table[40]["label"] = "2"
    file = write(tmp_path / "train.tsv", table)
    said = r"line 42: label '2' is unknown; the numbers of the classes are 0 to 1 \(neg, pos\)"
    with pytest.raises(DataError, match=said):
        lz.task("text", data=file, tokenizer=place, labels=["neg", "pos"])
    table[40]["label"] = "pos"
    with pytest.raises(
        DataError, match=r"line 42: label 'pos' is unknown; the numbers of the classes are 0 to 1"
    ):
        lz.task("text", data=write(file, table), tokenizer=place, labels=["neg", "pos"])
    table[40]["label"] = "1"
    for row in table:
        row["label"] = "bad" if row["label"] == "0" else "good"
    table[40]["label"] = "2"
    with pytest.raises(DataError, match=r"line 42: label '2' is unknown; known: bad, good"):
        lz.task("text", data=write(file, table), tokenizer=place, labels=["bad", "good"])


@pytest.mark.parametrize("kind", ["tsv", "csv"])
def test_a_first_line_of_other_names_is_no_sample(tmp_path, place, kind):
    table = [{"review": row["text"], "Label": row["label"]} for row in rows(0, 40)]
    file = write(tmp_path / f"train.{kind}", table)
    said = rf"train.{kind}, line 1: 'Label' under 'stars' is the name of a column and no label; take the line out"
    with pytest.raises(DataError, match=said):
        lz.task("text", data=file, tokenizer=place, header=["text", "stars"], label="stars")
    task = lz.task("text", data=file, tokenizer=place, label="Label")
    assert sum(task.size(name) for name in task.splits) == 40


def test_a_class_may_be_called_as_a_column_is(tmp_path, place):
    lines = [f"{row['text']}\t{'class' if row['label'] == 'good' else 'none'}" for row in rows(0, 40)]
    lines.sort(key=lambda line: line.endswith("none"))
    (tmp_path / "train.tsv").write_text("\n".join(lines) + "\n")
    task = lz.task("text", data=tmp_path / "train.tsv", tokenizer=place, header=["text", "label"])
    assert task.labels == ["class", "none"]
    (tmp_path / "train.tsv").write_text("")
    with pytest.raises(DataError, match="an empty file"):
        lz.task("text", data=tmp_path / "train.tsv", tokenizer=place, header=["text", "label"])


def test_a_data_set_of_the_hub_is_read_from_a_folder(tmp_path, place, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = r"imdb: no such file or folder; .*load_dataset\('stanfordnlp/imdb'\)\.save_to_disk\('imdb'\), then data: imdb"
    with pytest.raises(DataError, match=said):
        lz.task("text", data="stanfordnlp/imdb", tokenizer=place)
    with pytest.raises(DataError, match=said):
        explained(Path("stanfordnlp/imdb"))
    (tmp_path / "mine").mkdir()
    for other in ("mine/imdb", str(tmp_path / "imdb"), "imdb.csv"):
        with pytest.raises(DataError, match=r"no such file or folder$"):
            lz.task("text", data=other, tokenizer=place)
