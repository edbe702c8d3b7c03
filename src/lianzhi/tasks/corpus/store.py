"""A corpus as tokens on the disk: made once in one pass with little memory, then mapped and read where it is needed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError
from lianzhi.tasks import cache, hashing
from lianzhi.tasks.corpus.workers import in_order, own_threads
from lianzhi.tasks.readers import sentences
from lianzhi.tasks.text_preprocess import TextPreprocess
from lianzhi.tasks.tokenizer import FILE, parse
from lianzhi.tasks.waiting import counting

VERSION = 1
AT_ONCE = 8192

Sentence = tuple[int, str]  # its document, and itself


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


@dataclass(frozen=True)
class Chunk:
    """Some sentences in a row that have tokens: all their ids, how many each has, and its document."""

    ids: NDArray[np.int32]
    lengths: NDArray[np.int64]
    documents: NDArray[np.int64]


def open_corpus(files: Sequence[Path], preprocess: TextPreprocess, workers: int | None = None) -> Corpus:
    """Tokenize the files into the cache, or map what an earlier run made of the same files and tokenizer.

    Raises:
        DataError: a file is damaged, there is no sentence in them, or the cache cannot be written.
    """
    contents, size = _contents(files)
    key = hashing.digest(str(VERSION), preprocess.members[FILE], contents)
    folder = cache.folder() / "corpora"
    ids, rows = folder / f"{key}.ids", folder / f"{key}.rows"
    if not (ids.is_file() and rows.is_file()):
        try:
            with (
                counting(f"tokenizing the {len(files):,} files of the corpus", size) as done,
                own_threads(workers),
                closing(
                    in_order(_encoder(preprocess), _parts(sentences.read(files, done)), workers)
                ) as chunks,
            ):
                cache.write(ids, lambda stream: _write(chunks, files, stream, rows))
        except OSError as error:
            raise DataError(
                f"corpus: its tokens are kept in {folder}, which cannot be written ({error.strerror or error}); "
                f"set LIANZHI_CACHE to a folder that can be"
            ) from None
    places = np.memmap(rows, np.int64, "r").reshape(-1, 2)
    if places[-1, 0] * np.dtype(np.int32).itemsize != ids.stat().st_size:
        raise DataError(f"corpus: {ids} is damaged; delete the folder {folder}, and it is made again")
    return Corpus(np.memmap(ids, np.int32, "r"), places, key)


def _contents(files: Sequence[Path]) -> tuple[str, int]:
    """A digest of all that is in the files, and their bytes."""
    try:
        return cache.digest_files(files, always_whole=True), sum(file.stat().st_size for file in files)
    except OSError as error:
        raise DataError(
            f"{error.filename or f'a file of {files[0].parent}'}: cannot be read ({error.strerror}); restore it, or take it out of the corpus"
        ) from None


def _parts(stream: Iterator[Sentence]) -> Iterator[list[Sentence]]:
    """Lists of at most `AT_ONCE` sentences."""
    while part := list(itertools.islice(stream, AT_ONCE)):
        yield part


def _encoder(preprocess: TextPreprocess) -> Callable[[list[Sentence]], Chunk]:
    """What makes tokens of sentences, whole and without what the tokenizer puts around texts."""
    tokenizer = parse(preprocess.members[FILE], FILE)

    def encode(part: list[Sentence]) -> Chunk:
        found = tokenizer.encode_batch_fast([text for _, text in part], add_special_tokens=False)
        tokens = [one.ids for one in found]
        lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
        documents = np.fromiter((document for document, _ in part), np.int64, len(part))
        ids = np.fromiter(itertools.chain.from_iterable(tokens), np.int32, int(lengths.sum()))
        return Chunk(ids, lengths[lengths > 0], documents[lengths > 0])

    return encode


def _write(chunks: Iterable[Chunk], files: Sequence[Path], stream: Any, rows: Path) -> None:
    """Write the ids to the stream, and the rows beside them."""
    cache.write(rows, lambda places: _fill(chunks, files, stream, places))


def _fill(chunks: Iterable[Chunk], files: Sequence[Path], stream: Any, places: Any) -> None:
    end = 0
    for chunk in chunks:
        ends = end + np.cumsum(chunk.lengths)
        stream.write(chunk.ids.tobytes())
        places.write(np.stack([ends - chunk.lengths, chunk.documents], axis=1).tobytes())
        end += len(chunk.ids)
    if not end:
        raise DataError(f"corpus: {files[0]} and {len(files) - 1:,} more files hold no sentence")
    places.write(np.asarray([end, -1], np.int64).tobytes())
