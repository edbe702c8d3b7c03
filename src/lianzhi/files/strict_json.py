"""JSON from a file that somebody else may have written: strict, bounded, no surprises.

Python's parser takes duplicate keys (the last wins), NaN, numbers of any length, any nesting and any number of values. Here
each of these is an `ArtifactError` before anything is built from it.
"""

from __future__ import annotations

import json
import math
import os
import re
from typing import Any, NoReturn

from lianzhi.errors import ArtifactError
from lianzhi.files.disk import PathLike, read_text

MAX_DEPTH = 100
MOST_VALUES = 1 << 22  # brackets and commas; the largest tokenizers have two million
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str, source: str = "JSON") -> Any:
    """Parse JSON strictly; `source` stands in the messages.

    >>> parse_json('{"a": [1, 2.5, null]}')
    {'a': [1, 2.5, None]}
    >>> parse_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
        ...
    lianzhi.errors.ArtifactError: JSON is damaged or not made by Lianzhi: the key 'a' stands twice
    """

    def refuse(reason: str) -> NoReturn:
        raise ArtifactError(f"{source} is damaged or not made by Lianzhi: {reason}")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) != len(items):
            seen: set[str] = set()
            twice = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            refuse(f"the key {twice!r:.80} stands twice")
        return result

    def integer(digits: str) -> int:
        if len(digits) > 20:
            refuse(f"an integer of {len(digits)} digits")
        value = int(digits)
        if not -(2**63) <= value < 2**63:
            refuse(f"the integer {value} does not fit in 64 bits")
        return value

    def decimal(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            refuse(f"the number {digits:.40} is too large")
        return value

    if sum(map(text.count, "[{,")) > MOST_VALUES:
        refuse(f"more than {MOST_VALUES:,} values")
    _check_depth(text, refuse)
    try:
        value = json.loads(
            text,
            object_pairs_hook=pairs,
            parse_int=integer,
            parse_float=decimal,
            parse_constant=lambda name: refuse(f"{name} is not JSON"),
        )
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        refuse("a string holds half a character")
    except json.JSONDecodeError as error:
        refuse(f"{error.msg} in line {error.lineno}, column {error.colno}")
    return value


def read_json(path: PathLike, limit: int = 1 << 26) -> Any:
    """Read a JSON file of at most `limit` bytes, strictly."""
    return parse_json(read_text(path, limit), os.fspath(path))


def finite(value: Any) -> Any:
    """The value with None for numbers that JSON has not.

    >>> finite({"loss": [float("nan"), 0.5]})
    {'loss': [None, 0.5]}
    """
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check_depth(text: str, refuse: Any) -> None:
    depth = 0
    for token in _TOKEN.finditer(text):
        first = text[token.start()]
        if first in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                refuse(f"nested deeper than {MAX_DEPTH} levels")
        elif first in "]}":
            depth -= 1
