"""The JSON that plans are kept in: its format, and what is read from a text that may be anything."""

from __future__ import annotations

import json
from typing import Any

from lianzhi.errors import ArtifactError

FORMAT = 1


def parse(text: str) -> dict[str, Any]:
    """The fields of a plan. Raises `ArtifactError` for what is no plan, or one of another version.

    >>> parse('{"format": 1, "groups": {}}')["groups"]
    {}
    """
    try:
        data = json.loads(text)
        version = data["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"not a pruning plan ({type(error).__name__}: {error})") from None
    if version != FORMAT:
        raise ArtifactError(f"pruning plan of format {version!r}; this version reads format {FORMAT}")
    return dict(data)


def texts(data: dict[str, Any], key: str) -> list[str]:
    """A list of remarks, which may be missing."""
    found = data.get(key, [])
    if not isinstance(found, list):
        raise ArtifactError(f"pruning plan: '{key}' is a {type(found).__name__}, not a list")
    return [str(item) for item in found]
