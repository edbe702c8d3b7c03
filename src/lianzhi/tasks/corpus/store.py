"""A corpus as tokens on the disk: made once in one pass with little memory, then mapped and read where it is needed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError
from lianzhi.tasks import cache, hashing
from lianzhi.tasks.readers import sentences
from lianzhi.tasks.text_preprocess import TextPreprocess
from lianzhi.tasks.tokenizer import FILE, parse
from lianzhi.tasks.waiting import waiting

VERSION = 1
AT_ONCE = 8192


@dataclass(frozen=True)
class Corpus:
    """The tokens of sentence `i` are ``ids[rows[i, 0]:rows[i + 1, 0]]``; ``rows[i, 1]`` is its document."""

    ids: NDArray[np.int32]
    rows: NDArray[np.int64]
    digest: str

    def __len__(self) -> int:
        return len(self.rows) - 1

    def tokens(self, first: int, count: int) -> NDArray[np.int64]:
        """The tokens of some sentences in a row."""
        start, end = self.rows[first, 0], self.rows[first + count, 0]
        return self.ids[start:end].astype(np.int64)

    def lengths(self, first: int, count: int) -> NDArray[np.int64]:
        """How many tokens each of some sentences in a row has."""
        return np.diff(self.rows[first : first + count + 1, 0])


def open_corpus(files: Sequence[Path], preprocess: TextPreprocess) -> Corpus:
    """Tokenize the files into the cache, or map what an earlier run made of the same files and tokenizer.

    Raises:
        DataError: a file is damaged, there is no sentence in them, or the cache cannot be written.
    """
    key = hashing.digest(str(VERSION), preprocess.members[FILE], cache.digest_files(files))
    folder = cache.folder() / "corpora"
    ids, rows = folder / f"{key}.ids", folder / f"{key}.rows"
    if not (ids.is_file() and rows.is_file()):
        try:
            with waiting(f"tokenizing the {len(files):,} files of the corpus"):
                cache.write(ids, lambda stream: _write(files, preprocess, stream, rows))
        except OSError as error:
            raise DataError(
                f"corpus: its tokens are kept in {folder}, which cannot be written ({error.strerror or error}); "
                f"set LIANZHI_CACHE to a folder that can be"
            ) from None
    places = np.memmap(rows, np.int64, "r").reshape(-1, 2)
    if places[-1, 0] * np.dtype(np.int32).itemsize != ids.stat().st_size:
        raise DataError(f"corpus: {ids} is damaged; delete the folder {folder}, and it is made again")
    return Corpus(np.memmap(ids, np.int32, "r"), places, key)


def _write(files: Sequence[Path], preprocess: TextPreprocess, stream: Any, rows: Path) -> None:
    """Write the ids to the stream, and the rows beside them."""
    cache.write(rows, lambda places: _fill(files, preprocess, stream, places))


def _fill(files: Sequence[Path], preprocess: TextPreprocess, stream: Any, places: Any) -> None:
    begin = document = -1
    end = 0
    for found, ids in _encoded(files, preprocess):
        if not ids:
            continue
        begin, document, end = end, found, end + len(ids)
        stream.write(np.asarray(ids, np.int32).tobytes())
        places.write(np.asarray([begin, document], np.int64).tobytes())
    if begin < 0:
        raise DataError(f"corpus: {files[0]} and {len(files) - 1:,} more files hold no sentence")
    places.write(np.asarray([end, -1], np.int64).tobytes())


def _encoded(files: Sequence[Path], preprocess: TextPreprocess) -> Iterator[tuple[int, list[int]]]:
    """(document, tokens) of each sentence, whole and without what the tokenizer puts around texts."""
    tokenizer = parse(preprocess.members[FILE], FILE)
    stream = sentences.read(files)
    while chunk := list(itertools.islice(stream, AT_ONCE)):
        texts = [text for _, text in chunk]
        found = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        for (document, _), one in zip(chunk, found, strict=True):
            yield document, one.ids
