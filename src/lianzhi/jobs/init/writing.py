"""A recipe as text with a comment on every line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

WIDEST = 44


def render(data: Mapping[str, Any], comments: Mapping[str, str], head: Sequence[str] = ()) -> str:
    r"""YAML of mappings, lists and plain values. A comment belongs to a path such as ``steps.0.prune.ratio``.

    >>> print(render({"steps": [{"prune": {"ratio": 0.5}}], "seed": 0}, {"steps.0.prune.ratio": "half"}))
    steps:
      - prune:
          ratio: 0.5  # half
    <BLANKLINE>
    seed: 0
    <BLANKLINE>
    """
    blocks = ["\n".join(f"# {line}".rstrip() for line in head)] if head else []
    for key, value in data.items():
        lines = list(_lines(key, value, key, 0))
        column = (
            min(WIDEST, max(len(text) for text, path in lines if path in comments or not comments) + 2)
            if any(path in comments for _, path in lines)
            else 0
        )
        blocks.append("\n".join(_commented(text, comments.get(path), column) for text, path in lines))
    return "\n\n".join(blocks) + "\n"


def _commented(text: str, comment: str | None, column: int) -> str:
    return (
        text
        if comment is None
        else f"{text:<{column}}# {comment}"
        if len(text) + 2 <= column
        else f"{text}  # {comment}"
    )


def _lines(key: str, value: Any, path: str, indent: int) -> Iterator[tuple[str, str]]:
    """The lines of one key, each with the path that it is of."""
    space = " " * indent
    if isinstance(value, Mapping) and value:
        yield f"{space}{key}:", path
        for name, item in value.items():
            yield from _lines(name, item, f"{path}.{name}", indent + 2)
    elif (
        isinstance(value, list)
        and value
        and all(isinstance(item, Mapping) and len(item) == 1 for item in value)
    ):
        yield f"{space}{key}:", path
        for number, item in enumerate(value):
            (name, options), *_ = item.items()
            first, *rest = _lines(name, options, f"{path}.{number}.{name}", indent + 4)
            yield f"{space}  - {first[0].lstrip()}", first[1]
            yield from rest
    else:
        yield f"{space}{_scalar(key)}: {_scalar(value)}", path


def _scalar(value: Any) -> str:
    """A plain value, or a list of them, on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
