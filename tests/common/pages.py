"""What a page of the documentation holds: its fenced code, which tests run or compare with the page in the other language."""

from __future__ import annotations

import re
from pathlib import Path


def blocks(page: Path | str, kind: str = "python") -> list[str]:
    """The code of a page, or of its text, that is fenced as `kind`."""
    text = page.read_text(encoding="utf-8") if isinstance(page, Path) else page
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
