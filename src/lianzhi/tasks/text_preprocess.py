"""From a sentence, or two, to what a model takes: token ids, padded to the longest of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi import files
from lianzhi.errors import ArtifactError, DataError
from lianzhi.tasks import hashing
from lianzhi.tasks.tokenizer import FILE, FOLDER, TokenizerFiles, parse, read

MAX_LENGTH = 1 << 15
KEYS = {"kind", "max_length", "inputs", "pad_id", "pad_type_id", "pairs"}
NAMES = ("input_ids", "attention_mask", "token_type_ids")
Arrays = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class TextPreprocess:
    """How sentences become a batch of tokens; saved as ``preprocess.json`` with a folder ``tokenizer``.

    `max_length` counts tokens, those that the tokenizer adds included; what is longer is cut. `inputs` are the
    names of the model's arguments. `pairs`: the model was trained on two texts at a time.
    """

    max_length: int
    inputs: tuple[str, ...]
    pad_id: int = 0
    pad_type_id: int = 0
    members: dict[str, str] = field(default_factory=dict, repr=False)
    pairs: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.inputs if name not in NAMES]
        if unknown or "input_ids" not in self.inputs:
            raise DataError(
                f"inputs are {list(self.inputs)}; they are of {', '.join(NAMES)}, the first one among them"
            )
        if not 3 <= self.max_length <= MAX_LENGTH or min(self.pad_id, self.pad_type_id) < 0:
            raise DataError(
                f"max_length {self.max_length}, pad_id {self.pad_id}, pad_type_id {self.pad_type_id}: a length is "
                f"3 to {MAX_LENGTH:,}, an id at least 0"
            )

    @classmethod
    def open(
        cls, place: str, *, max_length: int, segments: bool | None = None, pairs: bool = False
    ) -> TextPreprocess:
        """The preprocessing of the tokenizer that lies at `place`. See `lianzhi.tasks.tokenizer.read`."""
        found: TokenizerFiles = read(place)
        given = found.segments if segments is None else segments
        names = NAMES if given else NAMES[:2]
        return cls(max_length, names, found.pad_id, found.pad_type_id, found.members, pairs)

    @classmethod
    def load(cls, folder: Path) -> TextPreprocess:
        """The preprocessing of an artifact.

        Raises:
            ArtifactError: its files are missing or damaged.
        """
        values = files.read_json(folder / "preprocess.json")
        file = folder / FOLDER / FILE
        if not file.is_file():
            raise ArtifactError(f"{file} is missing; restore it")
        try:
            values = {"pairs": False, **values}  # older ones do not say it
            if values.keys() != KEYS or values["kind"] != "text" or not isinstance(values["inputs"], list):
                raise ValueError("its keys are not kind, max_length, inputs, pad_id, pad_type_id, pairs")
            if type(values["pairs"]) is not bool:
                raise ValueError("pairs must be true or false")
            numbers = [values[key] for key in ("max_length", "pad_id", "pad_type_id")]
            if not all(type(number) is int for number in numbers):
                raise ValueError("lengths and ids must be whole numbers")
            made = cls(
                numbers[0],
                tuple(str(name) for name in values["inputs"]),
                numbers[1],
                numbers[2],
                {FILE: files.read_text(file)},
                values["pairs"],
            )
            _ = made.tokenizer
        except (ValueError, TypeError, AttributeError, DataError) as error:
            raise ArtifactError(f"{folder}: the description of its texts is damaged ({error})") from None
        return made

    @cached_property
    def tokenizer(self) -> Any:
        """The library's object, cutting at `max_length`."""
        made = parse(self.members[FILE], FILE)
        made.enable_truncation(self.max_length)
        return made

    @property
    def ids(self) -> int:
        """How many ids there are: one more than the largest, whether each has a token or not."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The tokenizer's tokens in the order of their ids; an id that has none is an empty text."""
        places = self.tokenizer.get_vocab(with_added_tokens=True)
        names = [""] * (max(places.values(), default=-1) + 1)
        for token, place in places.items():
            names[place] = token
        return tuple(names)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; the tokenizer itself is in `members`."""
        return {
            "kind": "text",
            "max_length": self.max_length,
            "inputs": list(self.inputs),
            "pad_id": self.pad_id,
            "pad_type_id": self.pad_type_id,
            "pairs": self.pairs,
        }

    def __call__(self, text: str, second: str | None = None) -> Arrays:
        """Tokens of one text, or of a pair, as a batch of one: int64 of shape (1, tokens) by name."""
        found = self.tokenizer.encode(text) if second is None else self.tokenizer.encode(text, second)
        return self.collate([np.asarray(found.ids)], [np.asarray(found.type_ids)])

    def cuts(self, text: str, second: str | None = None) -> bool:
        """Whether a text, or a pair, has more tokens than `max_length`, so that its end is not read."""
        found = self.tokenizer.encode(text) if second is None else self.tokenizer.encode(text, second)
        return bool(found.overflowing)

    def collate(self, ids: Sequence[NDArray[Any]], segments: Sequence[NDArray[Any]] | None) -> Arrays:
        """Pad to the longest; without `segments` every token is of the first text."""
        length = max((len(row) for row in ids), default=1)
        batch = np.full((len(ids), length), self.pad_id, np.int64)
        mask = np.zeros((len(ids), length), np.int64)
        for place, row in enumerate(ids):
            batch[place, : len(row)] = row
            mask[place, : len(row)] = 1
        made = {"input_ids": batch, "attention_mask": mask}
        if "token_type_ids" in self.inputs:
            types = np.where(mask == 1, 0, self.pad_type_id)
            for place, row in enumerate(segments or ()):
                types[place, : len(row)] = row
            made["token_type_ids"] = types
        return {name: made[name] for name in self.inputs}

    def digest(self) -> str:
        """Changes when other tokens would come out."""
        told = {key: value for key, value in self.to_dict().items() if key != "pairs"}
        return hashing.digest(self.members[FILE], str(told))

    def __str__(self) -> str:
        return f"TextPreprocess({self.digest()})"
