"""Doctests in docstrings as code: Markdown takes their `>>>` for a quotation."""

from __future__ import annotations


def fenced(text: str) -> str:
    """Put a fence around each doctest.

    >>> fenced("Add.\\n\\n>>> 1 + 1\\n2\\n\\nDone.").split("\\n")
    ['Add.', '', '```pycon', '>>> 1 + 1', '2', '```', '', 'Done.']
    """
    lines: list[str] = []
    inside = False
    for line in [*text.split("\n"), ""]:
        if line.startswith(">>>") and not inside:
            lines.append("```pycon")
            inside = True
        elif inside and not line.strip():
            lines.append("```")
            inside = False
        lines.append(line)
    return "\n".join(lines[:-1])
