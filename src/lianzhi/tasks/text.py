"""From the texts that a reader found to a task: check, cut so that no text stands in two parts, tokenize."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lianzhi.config import Config
from lianzhi.errors import DataError
from lianzhi.tasks._task import Task
from lianzhi.tasks.cuts import limited, partition_groups
from lianzhi.tasks.metrics import Metric
from lianzhi.tasks.options import Count
from lianzhi.tasks.text_preprocess import TextPreprocess
from lianzhi.tasks.token_split import TokenSplit
from lianzhi.tasks.tokens import tokenize

SHARE = 0.1
MOST_VALIDATION, MOST_CALIBRATION = 2000, 1024


class TextOptions(Config):
    """Options of every text task."""

    tokenizer: str | None = Field(
        default=None,
        description="folder of the model's tokenizer, package:NAME/folder, or a name on the hub (default: the model's)",
    )
    max_length: int = Field(
        default=128, ge=3, le=1 << 15, description="tokens; longer texts are cut, and counted"
    )
    segments: bool | None = Field(
        default=None, description="give the model token_type_ids (default: as its tokenizer says)"
    )
    bucket: bool = Field(default=True, description="train on batches of texts of like length")
    validation: Count | None = Field(
        default=None, description="texts cut from train to choose by (default: 10 %, at most 2,000)"
    )
    calibration: Count | None = Field(
        default=None,
        description="texts cut from train to calibrate quantizers (default: 10 %, at most 1,024)",
    )
    split_seed: int = Field(default=0, description="another seed is another cut")
    limit: int | None = Field(default=None, ge=1, description="use at most so many texts of each split")


@dataclass(frozen=True)
class TextPart:
    """Texts, or pairs of them, with labels. `line` names a row in a message."""

    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: NDArray[np.int64]
    where: str
    line: Callable[[int], str]

    def keys(self) -> list[str]:
        """The texts without what does not tell them apart: case and white space."""
        return keys_of(self.texts, self.pairs)


@dataclass(frozen=True)
class TextFacts:
    """What is known of a text data set beside its texts."""

    name: str
    source: str
    labels: tuple[str, ...]
    metrics: dict[str, Metric]


def normal(text: str) -> str:
    """A text for comparison.

    >>> normal("A  good\\tFilm ")
    'a good film'
    """
    return " ".join(text.casefold().split())


def keys_of(texts: Sequence[str], pairs: Sequence[str] | None) -> list[str]:
    """Texts, or pairs of them, for comparison.

    >>> keys_of(["A  film"], None) == keys_of(["a film "], [""])
    True
    """
    seconds = pairs if pairs is not None else [""] * len(texts)
    return [f"{normal(one)}\0{normal(two)}" for one, two in zip(texts, seconds, strict=True)]


def assemble_text(parts: dict[str, TextPart], facts: TextFacts, options: TextOptions) -> Task:
    """Make the task of parts ``train`` and ``test``, of which the second is only reported.

    The split to choose by and the one to calibrate with are cut from ``train``; texts that stand more than once
    stay together, and those that stand in ``test`` too leave ``train``.
    """
    if options.tokenizer is None:
        raise DataError(
            f"task '{facts.name}' needs the model's tokenizer; give tokenizer: the model's folder, "
            f"package:NAME/folder, or its name on the hub"
        )
    for part in parts.values():
        check(part, len(facts.labels))
    preprocess = TextPreprocess.open(
        options.tokenizer, max_length=options.max_length, segments=options.segments
    )
    chosen, notes = _choose(parts, options)
    tokens = {name: tokenize(part.texts, part.pairs, preprocess) for name, part in parts.items()}
    splits: dict[str, TokenSplit] = {}
    for name, (source, selected) in chosen.items():
        part = parts[source]
        rows = limited(selected, part.labels[selected], options.limit, options.split_seed)
        bucket = options.bucket and name == "train"
        splits[name] = TokenSplit(tokens[source], rows, part.labels[rows], preprocess, bucket=bucket)
    notes += cut_notes(splits)
    reported = splits.get("test") or next(iter(splits.values()))
    return Task(
        *(splits.get(split) for split in ("train", "validation", "calibration", "test")),
        metrics=facts.metrics,
        name=facts.name,
        labels=facts.labels,
        preprocess=preprocess,
        example_inputs=reported.example(),
        source=facts.source,
        notes=tuple(notes),
    )


def check(part: TextPart, classes: int) -> None:
    """Raise `DataError` for the first text without words, and for the first label that is none of the classes."""
    if not len(part.texts):
        raise DataError(f"{part.where}: no texts; an empty part cannot be used")
    for row, text in enumerate(part.texts):
        if not text.strip() or (part.pairs is not None and not part.pairs[row].strip()):
            raise DataError(f"{part.line(row)}: an empty text; fill it in or take the line out")
    wrong = np.flatnonzero((part.labels < 0) | (part.labels >= classes))
    if len(wrong):
        more = f" (and {len(wrong) - 1:,} more)" if len(wrong) > 1 else ""
        raise DataError(
            f"{part.line(int(wrong[0]))}: label {part.labels[wrong[0]]} is outside the class range "
            f"0 to {classes - 1}{more}; mend the labels"
        )


def _choose(
    parts: dict[str, TextPart], options: TextOptions
) -> tuple[dict[str, tuple[str, NDArray[np.int64]]], list[str]]:
    """Which rows of which part make each split, and what is to be said of it."""
    chosen: dict[str, tuple[str, NDArray[np.int64]]] = {}
    notes: list[str] = []
    if "train" in parts:
        train = parts["train"]
        keys = train.keys()
        reported = set(parts["test"].keys()) if "test" in parts else set()
        usable = np.asarray([row for row, key in enumerate(keys) if key not in reported], np.int64)
        if len(usable) < len(keys):
            dropped = len(keys) - len(usable)
            notes.append(f"{dropped:,} texts of train that stand in the reported part too were left out")
        numbers: dict[str, int] = {}
        groups = np.asarray([numbers.setdefault(keys[row], len(numbers)) for row in usable], np.int64)
        counts = {
            "validation": _count(options.validation, len(usable), MOST_VALIDATION),
            "calibration": _count(options.calibration, len(usable), MOST_CALIBRATION),
        }
        rows = partition_groups(train.labels[usable], groups, counts, options.split_seed, what=train.where)
        chosen = {name: ("train", usable[selected]) for name, selected in rows.items()}
        for name, (_, selected) in chosen.items():
            if not len(selected):
                raise DataError(
                    f"{train.where}: too few texts to cut the {name} split from; give more, or {name}: 0"
                )
    if "test" in parts:
        chosen["test"] = ("test", np.arange(len(parts["test"].texts)))
    return chosen, notes


def _count(given: int | float | None, total: int, most: int) -> int | float:
    return min(max(1, round(SHARE * total)), most) if given is None else given


def cut_notes(splits: Mapping[str, TokenSplit]) -> list[str]:
    """How many texts of each part are longer than a model gets them; a part bears the name of its first split."""
    parts: dict[int, tuple[str, TokenSplit]] = {}
    for name, split in splits.items():
        parts.setdefault(id(split.tokens), (name, split))
    return [
        f"{split.tokens.cut.sum():,} of {len(split.tokens):,} texts of {name} are longer than "
        f"{split.preprocess.max_length} tokens and were cut"
        for name, split in parts.values()
        if split.tokens.cut.any()
    ]
