"""A smaller vocabulary: the tokens that the training texts need, and whatever keeps every other word readable.

Kept are the special tokens, the tokens that are counted, and every token of one character (with its ``##`` form, or
its byte), so that a word which could be read can still be read, in more pieces; for characters that have no such token
see `kept_pieces.py`. Of merges (BPE) those stay that lead
to a kept token. The training texts are tokenized as they were.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError
from lianzhi.tasks._task import Task
from lianzhi.tasks.kept_pieces import unreadable_without
from lianzhi.tasks.text_preprocess import TextPreprocess
from lianzhi.tasks.token_split import TokenSplit
from lianzhi.tasks.tokenizer import FILE, parse

FIRST = 16  # a padding below it keeps its id, and what stands before it: a RoBERTa counts positions from the padding


def count_tokens(task: Task, split: str = "train") -> NDArray[np.int64]:
    """How often each token stands in the texts of a split, by id, (largest id + 1,).

    A text that is cut counts whole: how its end is read decides what is cut off a pair, or within a word.

    Raises:
        DataError: the task is not of texts.
    """
    part = task.splits.get(split)
    if not isinstance(part, TokenSplit):
        raise DataError(
            f"task '{task.name}' is not of texts, or has no {split} split; its tokens cannot be counted"
        )
    size, tokens = part.preprocess.ids, part.tokens
    counts = np.zeros(size, np.int64)
    for row in part.rows[~tokens.cut[part.rows]]:
        np.add.at(counts, tokens.row(row), 1)
    whole = parse(part.preprocess.members[FILE], FILE)  # which cuts nothing
    for row in part.rows[tokens.cut[part.rows]]:
        pair = () if tokens.pairs is None else (tokens.pairs[row],)
        np.add.at(counts, whole.encode(tokens.texts[row], *pair).ids, 1)
    return counts


def reduced(
    preprocess: TextPreprocess, counts: NDArray[np.int64], *, size: int | None = None, least: int = 1
) -> tuple[TextPreprocess, NDArray[np.int64]]:
    """The preprocessing with a smaller vocabulary, and the old ids of its tokens in the order of the new ones.

    Tokens that occur `least` times stay; with `size` the most frequent, as many as make so many in all.

    Raises:
        DataError: the tokenizer is of a kind that is not known, or `size` leaves no room for what has to stay.
    """
    values = json.loads(preprocess.members[FILE])
    names = _names(values)
    needed = _needed(values, names) | {preprocess.pad_id}
    if preprocess.pad_id < FIRST:
        needed |= names.keys() & range(preprocess.pad_id)
    frequent = [int(token) for token in np.argsort(-counts, kind="stable") if counts[token] >= least]
    kept = set(needed)
    for token in frequent:
        closure = _closure(values, names, token) - kept
        if size is not None and len(kept) + len(closure) > size:
            continue
        kept |= closure
    if size is not None and len(needed) > size:
        raise DataError(
            f"a vocabulary of {size:,} is too small: {len(needed):,} tokens are special, of one character, or needed for "
            f"characters without a token of their own, and have to stay; give a size above that"
        )
    order = np.asarray(sorted(kept), np.int64)
    new = {int(old): place for place, old in enumerate(order)}
    _rewrite(values, names, new)
    made = replace(
        preprocess,
        pad_id=new[preprocess.pad_id],
        members={**preprocess.members, FILE: json.dumps(values, ensure_ascii=False)},
    )
    return made, order


def _names(values: dict[str, Any]) -> dict[int, str]:
    """Tokens by id, added ones too."""
    model = values["model"]
    kind = model.get("type")
    if kind == "WordLevel":
        raise DataError(
            "the tokenizer reads whole words: a word that is dropped could not be read at all; make it with a smaller "
            "size instead"
        )
    if kind in ("WordPiece", "BPE"):
        names = {int(number): name for name, number in model["vocab"].items()}
    elif kind == "Unigram":
        names = {place: entry[0] for place, entry in enumerate(model["vocab"])}
    else:
        raise DataError(
            f"the tokenizer is a {kind}; a smaller vocabulary is made of WordPiece, BPE and Unigram"
        )
    return names | {int(token["id"]): token["content"] for token in values.get("added_tokens", [])}


def _needed(values: dict[str, Any], names: dict[int, str]) -> set[int]:
    """Special tokens, every token of one character, and those that read what has no such token."""
    model = values["model"]
    ids = {name: number for number, name in names.items()}
    special = {int(token["id"]) for token in values.get("added_tokens", [])}
    named = [model.get("unk_token"), (values.get("padding") or {}).get("pad_token"), "[PAD]", "[UNK]"]
    special |= {ids[name] for name in named if isinstance(name, str) and name in ids}
    special |= {number for number in _processor_ids(values.get("post_processor")) if number in names}
    special |= {number for number in (model.get("unk_id"), _padding_id(values)) if number in names}
    prefix = model.get("continuing_subword_prefix") or ""
    suffix = model.get("end_of_word_suffix") or ""
    single = set()
    for number, name in names.items():
        bare = name.removeprefix(prefix) if prefix and name != prefix else name
        bare = bare.removesuffix(suffix) if suffix and bare != suffix else bare
        byte = bare.startswith("<0x") and bare.endswith(">") and len(bare) == 6
        if len(bare) == 1 or byte or bare == "▁":
            single.add(number)
    return special | single | unreadable_without(model, names)


def _closure(values: dict[str, Any], names: dict[int, str], token: int) -> set[int]:
    """A token with the tokens that merges make it of, in each of the ways that they may."""
    if values["model"]["type"] != "BPE":
        return {token}
    parts, ids = _merges(values), {name: number for number, name in names.items()}
    found, todo = set(), [names[token]]
    while todo:
        name = todo.pop()
        if ids[name] in found:
            continue
        found.add(ids[name])
        todo += [part for pair in parts.get(name, ()) for part in pair if part in ids]
    return found


def _merges(values: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """By the token that they make, all merges that make it. Computed once, and kept in `values`."""
    model = values["model"]
    if "_made" not in model:
        made: dict[str, list[tuple[str, str]]] = {}
        prefix = model.get("continuing_subword_prefix") or ""
        for merge in model["merges"]:
            first, second = merge.split(" ") if isinstance(merge, str) else merge
            made.setdefault(first + second.removeprefix(prefix), []).append((first, second))
        model["_made"] = made
    found: dict[str, list[tuple[str, str]]] = model["_made"]
    return found


def _rewrite(values: dict[str, Any], names: dict[int, str], new: dict[int, int]) -> None:
    """Give the kept tokens their new ids, everywhere that the file names one."""
    model = values["model"]
    model.pop("_made", None)
    if model["type"] == "Unigram":
        model["vocab"] = [entry for place, entry in enumerate(model["vocab"]) if place in new]
        if isinstance(model.get("unk_id"), int):
            model["unk_id"] = new[model["unk_id"]]
    else:
        own = set(model["vocab"].values())
        model["vocab"] = {names[old]: place for old, place in new.items() if old in own}
    if model["type"] == "BPE":
        prefix = model.get("continuing_subword_prefix") or ""
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [
            list(pair)
            for pair in pairs
            if all(name in model["vocab"] for name in (*pair, pair[0] + pair[1].removeprefix(prefix)))
        ]
    for token in values.get("added_tokens", []):
        token["id"] = new[int(token["id"])]
    if _padding_id(values) in new:
        values["padding"]["pad_id"] = new[_padding_id(values)]
    _renumber(values.get("post_processor"), new)


def _padding_id(values: dict[str, Any]) -> int:
    """The id that the file itself pads with; -1: it does not pad."""
    return int((values.get("padding") or {}).get("pad_id", -1))


def _processor_ids(processor: Any) -> list[int]:
    """The ids that a post-processor puts in."""
    found: list[int] = []

    def note(number: int) -> int:
        found.append(number)
        return number

    _each_id(processor, note)
    return found


def _renumber(processor: Any, new: dict[int, int]) -> None:
    _each_id(processor, lambda number: new[number])


def _each_id(processor: Any, change: Any) -> None:
    """Put what `change` gives in place of each id of a post-processor: templates, BERT's and RoBERTa's, sequences."""
    if not isinstance(processor, dict):
        return
    for inner in processor.get("processors", []):
        _each_id(inner, change)
    for token in (processor.get("special_tokens") or {}).values():
        token["ids"] = [change(int(number)) for number in token["ids"]]
    for name in ("sep", "cls"):
        pair = processor.get(name)
        if isinstance(pair, list) and len(pair) == 2:
            pair[1] = change(int(pair[1]))
