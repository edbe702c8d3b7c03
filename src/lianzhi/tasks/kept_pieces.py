"""Pieces that stay in a smaller vocabulary, so that no word which could be read becomes unknown.

A character that has a piece of its own, in the form of its place (`a` at the beginning, `##a` behind it), can be read
whatever else goes. One that has none can be read in longer pieces alone, and these stay. That is all there is to it in

    BPE        which begins with single characters, so that longer pieces read nothing more; but with `ignore_merges`,
               which looks up whole words first

In WordPiece the longest piece is taken at each place, and it has to come to the place where such a piece begins. With
`abc` gone it may take `ab`, then `##cd`, and step over the beginning of `##dж`. So there stay as well

    WordPiece  the pieces that can reach over the beginning of one that has to stay, and of these in turn

Then every piece that has to stay is where it was: let x be the first of a word that is not. A kept piece q reaches over
its beginning, and q begins where no piece began before, or it, or a longer one, had been taken there then. So it began
inside of an earlier piece r, which reaches over the beginning of q and has to stay, and is where it was, since x is the
first that is not; nothing begins inside of r. What lies between pieces that stay is read by single characters at least.

In Unigram the likeliest pieces are taken together, unknown ones among them, at ten below the least likely piece. The
least likely one stays, so that the price does; all the same an unknown piece with longer pieces beside it may become
likelier than a longer piece with single characters beside it. That one is not ruled out.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any


def unreadable_without(model: dict[str, Any], names: dict[int, str]) -> set[int]:
    """The numbers of the pieces that have to stay, beside the special ones and those of one character.

    `model` is that of a ``tokenizer.json``, `names` are its tokens by id.
    """
    kind, prefix = model["type"], model.get("continuing_subword_prefix") or ""
    if kind == "WordPiece":
        return _wordpiece(names, prefix)
    if kind == "Unigram":
        alone = {name for name in names.values() if len(name) == 1}
        scores = {number: entry[1] for number, entry in enumerate(model["vocab"])}
        rare = {min(scores, key=lambda number: (scores[number], number))} if scores else set()
        return rare | {number for number, name in names.items() if any(char not in alone for char in name)}
    if not model.get("ignore_merges"):
        return set()
    known, suffix = set(names.values()), model.get("end_of_word_suffix") or ""
    return {
        number
        for number, name in names.items()
        if any(form not in known for form in _forms(name, prefix, suffix))
    }


def _forms(text: str, prefix: str, suffix: str = "") -> list[str]:
    """The characters of a word as pieces of their own.

    >>> _forms("abc", "##", "</w>")
    ['a', '##b', '##c</w>']
    """
    last = len(text) - 1
    return [
        f"{prefix if place else ''}{char}{suffix if place == last else ''}" for place, char in enumerate(text)
    ]


def _wordpiece(names: dict[int, str], prefix: str) -> set[int]:
    """Pieces with a character that has none of its own in that place, and those that reach over their beginnings."""
    known = set(names.values())
    texts: dict[int, str] = {}
    inside, found = set(), set()  # pieces behind a beginning; those that have to stay
    for number, name in names.items():
        if name.startswith("[") and name.endswith("]"):
            continue  # special ones
        text = name if name == prefix else name.removeprefix(prefix)
        forms = _forms(text, prefix)
        if len(text) < len(name) or not prefix:
            inside.add(number)
            forms = [prefix + char for char in text]
        texts[number] = text
        if any(form not in known for form in forms):
            found.add(number)
    todo = list(found & inside)
    if todo:
        over = _reaching_over(texts)
    while todo:
        new = over(texts[todo.pop()]) - found
        found |= new
        todo += new & inside
    return found


def _reaching_over(texts: dict[int, str]) -> Any:
    """A function from a text to the pieces that begin before it and end in it or behind it, in some word."""
    ends: dict[str, set[int]] = defaultdict(set)
    parts: dict[str, set[int]] = defaultdict(set)
    for number, text in texts.items():
        for begin in range(1, len(text)):
            ends[text[begin:]].add(number)
            for end in range(begin + 1, len(text)):
                parts[text[begin:end]].add(number)

    def over(text: str) -> set[int]:
        beginnings = (text[:end] for end in range(1, len(text) + 1))
        return parts.get(text, set()).union(*(ends.get(beginning, set()) for beginning in beginnings))

    return over
