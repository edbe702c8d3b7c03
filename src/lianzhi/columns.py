"""Rows of text as lines: every column as wide as its widest cell."""

from __future__ import annotations

from collections.abc import Container, Sequence


def aligned(rows: Sequence[Sequence[str]], left: Container[int] = ()) -> list[str]:
    """Lines with two blanks between columns; those in `left` begin together, the others end together.

    >>> aligned([("layer", "bytes"), ("fc", "1,024")], left={0})
    ['layer  bytes', 'fc     1,024']
    """
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if column in left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
