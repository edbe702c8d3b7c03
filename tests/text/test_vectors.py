"""Word vectors: three kinds of files give the same rows, and what is no such file is refused in words."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lianzhi.errors import DataError
from lianzhi.models.text.vectors import WordVectors, read_vectors, require_vectors

WORDS = ["good", "bad", "film", ". . ."]
NUMBERS = np.asarray([[1, 2, 3], [-1, 0.5, 0], [0.25, 0, 1], [9, 9, 9]], np.float32)


def write_folder(folder, words=WORDS, numbers=NUMBERS):
    folder.mkdir()
    np.save(folder / "emb.npy", numbers)
    pq.write_table(pa.table({"index": pa.array(words)}), folder / "index.parquet")
    return str(folder)


def write_text(file, head=""):
    lines = [" ".join([word, *map(str, row)]) for word, row in zip(WORDS, NUMBERS.tolist(), strict=True)]
    file.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


@pytest.fixture
def places(tmp_path):
    np.savez(tmp_path / "v.npz", words=np.asarray(WORDS), vectors=NUMBERS)
    return [
        write_folder(tmp_path / "folder"),
        write_text(tmp_path / "glove.txt"),
        write_text(tmp_path / "word2vec.vec", "4 3\n"),
        str(tmp_path / "v.npz"),
    ]


def test_every_kind_of_file_gives_the_same_rows(places):
    asked = ["film", "nowhere", ". . .", "good"]
    for place in places[:2] + places[3:]:
        rows, known = read_vectors(place).rows(asked)
        assert known.tolist() == [True, False, True, True], place
        assert np.array_equal(rows, [NUMBERS[2], np.zeros(3), NUMBERS[3], NUMBERS[0]])
        assert rows.dtype == np.float32


def test_a_first_line_of_counts_is_passed_over(places):
    assert list(read_vectors(places[2]).words) == WORDS


def test_an_installed_package_is_found_without_being_imported(tmp_path, monkeypatch):
    (tmp_path / "some_vectors").mkdir()
    (tmp_path / "some_vectors" / "__init__.py").write_text("raise RuntimeError('imported')")
    write_folder(tmp_path / "some_vectors" / "data")
    monkeypatch.syspath_prepend(tmp_path)
    assert read_vectors("package:some_vectors/data").width == 3


def test_a_word_that_stands_twice_has_its_first_row():
    twice = WordVectors(["a", "b", "a"], np.eye(3, dtype=np.float32), "x")
    assert twice.places == {"a": 0, "b": 1}


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "v.npz", words=np.asarray(WORDS, object), vectors=NUMBERS)
    with pytest.raises(DataError, match="pickled objects are refused"):
        read_vectors(str(tmp_path / "v.npz"))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("good 1 2\nbad 1\n", r"line 2: 'bad 1' is not a word and 2 numbers"),
        ("good 1 2\nbad 1 x\n", "line 2"),
        ("good\n", "line 1"),
        ("", "vectors of shape"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, lines, said):
    (tmp_path / "v.txt").write_text(lines)
    for look in (read_vectors, require_vectors):
        with pytest.raises(DataError, match=said):
            look(str(tmp_path / "v.txt"))


def test_a_long_table_is_looked_at_and_not_read_whole(tmp_path):
    (tmp_path / "v.txt").write_text("good 1 2\n" * 500 + "bad 1\n")
    require_vectors(str(tmp_path / "v.txt"))
    with pytest.raises(DataError, match="line 501"):
        read_vectors(str(tmp_path / "v.txt"))


@pytest.mark.parametrize("head", ["3 2", "1 2", "7 2"])
def test_a_first_line_of_another_count(tmp_path, head):
    (tmp_path / "v.vec").write_text(f"{head}\ngood 1 2\nbad 1 3\n")
    for look in (read_vectors, require_vectors):
        with pytest.raises(DataError, match=f"says {head[0]} words, and there are 2"):
            look(str(tmp_path / "v.vec"))


def test_the_first_line_says_the_width(tmp_path):
    """Words hold blanks; the file begins with a mark of its order of bytes, and ends with empty lines."""
    (tmp_path / "v.vec").write_text("\ufeff2 2\r\nNew York 1 2\r\nbad 1 3\r\n\r\n\n", newline="")
    found = read_vectors(str(tmp_path / "v.vec"))
    assert (found.words, found.matrix.tolist()) == (["New York", "bad"], [[1, 2], [1, 3]])
    (tmp_path / "w.vec").write_text("2 3\ngood 1 2\nbad 1 3\n")
    with pytest.raises(DataError, match="line 2: 'good 1 2' is not a word and 3 numbers"):
        require_vectors(str(tmp_path / "w.vec"))


def test_a_folder_without_vectors_is_refused_before_it_is_needed(tmp_path):
    with pytest.raises(DataError, match=r"holds 0 \.npy files"):
        require_vectors(str(tmp_path))


def test_what_is_not_there_or_does_not_fit(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_vectors(str(tmp_path / "v.txt"))
    with pytest.raises(DataError, match="pip install no-such-vectors"):
        read_vectors("package:no_such_vectors/data")
    with pytest.raises(DataError, match=r"holds 0 \.npy files"):
        read_vectors(str(tmp_path))
    with pytest.raises(DataError, match="3 words and 4 vectors"):
        read_vectors(write_folder(tmp_path / "short", WORDS[:3]))
    with pytest.raises(DataError, match="int64"):
        read_vectors(write_folder(tmp_path / "whole", WORDS, NUMBERS.astype(np.int64)))
    np.savez(tmp_path / "v.npz", vectors=NUMBERS)
    with pytest.raises(DataError, match="no array 'words'"):
        read_vectors(str(tmp_path / "v.npz"))


def test_a_vector_that_is_not_finite_is_refused_when_it_is_asked_for():
    numbers = NUMBERS.copy()
    numbers[1, 0] = np.nan
    vectors = WordVectors(WORDS, numbers, "here")
    vectors.rows(["good", "film"])
    with pytest.raises(DataError, match="'bad' is not finite"):
        vectors.rows(WORDS)
