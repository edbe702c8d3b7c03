"""From the texts that a reader found to a task: check, cut so that no text stands in two parts, tokenize."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from pydantic import Field

from lianzhi.config import Config
from lianzhi.errors import DataError, RecipeError, did_you_mean
from lianzhi.tasks._task import Task
from lianzhi.tasks.cuts import Rows, limited, partition_groups, strata
from lianzhi.tasks.metrics import Metric
from lianzhi.tasks.options import Count
from lianzhi.tasks.outputs import logits_alone, score_loss
from lianzhi.tasks.text_part import TextFacts, TextPart, check_classes, check_scores, check_texts
from lianzhi.tasks.text_preprocess import TextPreprocess
from lianzhi.tasks.token_split import TokenSplit
from lianzhi.tasks.tokens import tokenize
from lianzhi.tasks.words import of_words, size_of

SPLITS = ("train", "validation", "calibration", "test")
SHARE = 0.1
MOST_VALIDATION, MOST_CALIBRATION = 2000, 1024


class TextOptions(Config):
    """Options of every text task."""

    tokenizer: str | None = Field(
        default=None,
        description="folder of the model's tokenizer, package:NAME/folder, a name on the hub, or words: the 10,000 "
        "commonest of the training split (words:5000: so many); default: the model's",
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
    metric: str | None = Field(
        default=None, description="which of the task's metrics decides (default: its first)"
    )


def assemble_text(
    parts: dict[str, TextPart], facts: TextFacts, options: TextOptions, *, test: int | float = 0
) -> Task:
    """Make the task of parts ``train``, ``validation``, ``test`` and others, of which these two are only reported.

    What the data does not have is cut from ``train``: the split to choose by, the one to calibrate with and, where
    `test` is a count, the reported one. Texts that stand more than once stay together, and those that stand in a
    later part too leave the earlier one.
    """
    if options.tokenizer is None:
        raise DataError(
            f"task '{facts.name}' needs the model's tokenizer; give tokenizer: the model's folder, "
            f"package:NAME/folder, or its name on the hub; words for a model over word vectors"
        )
    for part in parts.values():
        _check(part, facts)
    chosen, notes = _choose(parts, options, test)
    limits = options.limit, options.split_seed
    for name, (source, selected) in chosen.items():
        chosen[name] = source, limited(selected, strata(parts[source].labels[selected]), *limits)
    preprocess = _preprocess(parts, chosen.get("train"), options)
    tokens = {name: tokenize(part.texts, part.pairs, preprocess) for name, part in parts.items()}
    splits: dict[str, TokenSplit] = {}
    for name, (source, rows) in chosen.items():
        part, bucket = parts[source], options.bucket and name == "train"
        splits[name] = TokenSplit(tokens[source], rows, part.labels[rows], preprocess, bucket=bucket)
    notes += [*_unseen(splits.get("train"), facts.labels), *cut_notes(splits)]
    reported = splits.get("test") or next(iter(splits.values()))
    return Task(
        *(splits.get(split) for split in SPLITS),
        loss=score_loss if facts.labels is None else None,
        metrics=_metrics(facts, options.metric),
        condense=logits_alone,
        name=facts.name,
        labels=facts.labels,
        num_classes=1 if facts.labels is None else None,
        preprocess=preprocess,
        example_inputs=reported.example(),
        source=facts.source,
        notes=tuple(notes),
        also={name: split for name, split in splits.items() if name not in SPLITS},
    )


def _preprocess(
    parts: dict[str, TextPart], train: tuple[str, Rows] | None, options: TextOptions
) -> TextPreprocess:
    """The model's tokenizer, or one of the words of the rows to train on."""
    assert options.tokenizer is not None
    size = size_of(options.tokenizer)
    if size is None:
        return TextPreprocess.open(
            options.tokenizer,
            max_length=options.max_length,
            segments=options.segments,
            pairs=any(part.pairs is not None for part in parts.values()),
        )
    if train is None:
        raise DataError(
            "tokenizer: words are counted in the training split, and there is none; give the folder of the model "
            "that was trained, which has them"
        )
    part, rows = parts[train[0]], train[1]
    texts = [side[row] for side in (part.texts, part.pairs) if side is not None for row in rows]
    segments = part.pairs is not None if options.segments is None else options.segments
    made = of_words(texts, max_length=options.max_length, size=size, pairs=segments)
    return replace(made, pairs=part.pairs is not None)


def _check(part: TextPart, facts: TextFacts) -> None:
    check_texts(part)
    if facts.labels is None:
        check_scores(part, facts.lowest, facts.highest)
    else:
        check_classes(part, len(facts.labels))


def _unseen(train: TokenSplit | None, labels: tuple[str, ...] | None) -> list[str]:
    """Classes that cannot be learned, since no text is of them."""
    if train is None or labels is None:
        return []
    counts = np.bincount(train.labels, minlength=len(labels))
    return [
        f"train has no text of the class '{name}'"
        for name, count in zip(labels, counts, strict=True)
        if not count
    ]


def _metrics(facts: TextFacts, first: str | None) -> dict[str, Metric]:
    """The task's metrics, the one that decides in front."""
    if first is None:
        return facts.metrics
    if first not in facts.metrics:
        raise RecipeError(f"task '{facts.name}' has no metric '{first}'{did_you_mean(first, facts.metrics)}")
    return {first: facts.metrics[first], **facts.metrics}


def _choose(
    parts: dict[str, TextPart], options: TextOptions, test: int | float
) -> tuple[dict[str, tuple[str, Rows]], list[str]]:
    """Which rows of which part make each split, and what is to be said of it."""
    chosen: dict[str, tuple[str, Rows]] = {}
    notes: list[str] = []
    for name, part in parts.items():
        for reason, count in (part.left_out or {}).items():
            notes.append(f"{count:,} rows of {name} were left out: {reason}")
    usable, found = _apart(parts)
    notes += found
    if "train" in parts:
        train, rows = parts["train"], usable["train"]
        numbers: dict[str, int] = {}
        keys = train.keys()
        groups = np.asarray([numbers.setdefault(keys[row], len(numbers)) for row in rows], np.int64)
        counts = {
            "test": test,
            "validation": _count(options.validation, len(rows), MOST_VALIDATION),
            "calibration": _count(options.calibration, len(rows), MOST_CALIBRATION),
        }
        wanted = {name: count for name, count in counts.items() if name not in parts}
        cuts = partition_groups(
            strata(train.labels[rows]), groups, wanted, options.split_seed, what=train.where
        )
        chosen = {name: ("train", rows[selected]) for name, selected in cuts.items()}
        for name, (_, selected) in chosen.items():
            if not len(selected):
                raise DataError(
                    f"{train.where}: too few texts to cut the {name} split from; give more, or {name}: 0"
                )
    return chosen | {name: (name, usable[name]) for name in parts if name != "train"}, notes


def _apart(parts: dict[str, TextPart]) -> tuple[dict[str, Rows], list[str]]:
    """The rows of each part that stand in no later one: reported parts are whole, then comes validation, then train."""
    usable = {name: np.arange(len(part.texts)) for name, part in parts.items()}
    notes: list[str] = []
    taken: set[str] = set()
    for name in parts.keys() - {"train", "validation"}:
        taken.update(parts[name].keys())
    other = "the reported part"
    for name in ("validation", "train"):
        if name not in parts:
            continue
        keys = parts[name].keys()
        kept = np.asarray([row for row, key in enumerate(keys) if key not in taken], np.int64)
        if not len(kept):
            raise DataError(f"{parts[name].where}: all its texts stand in {other} too; give others")
        if len(kept) < len(keys):
            left = len(keys) - len(kept)
            notes.append(f"{left:,} texts of {name} that stand in {other} too were left out")
        usable[name], other = kept, "another part"
        taken.update(keys)
    return usable, notes


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
