"""The picture of the rooms on docs/architecture.md: what each holds is from the page's table, who stands on whom from the code.

A card is a row of the table. It stands above all cards whose rooms its own import, so that every import goes down.

    python website/rooms.py          # writes docs/img/rooms.svg and docs/img/rooms.zh.svg
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "lianzhi"
PICTURES = {"rooms.svg": "architecture.md", "rooms.zh.svg": "zh/architecture.md"}
WIDTH, GAP, EDGE, LINE = 760, 12, 16, 15
STYLE = """
svg { --panel: #fff; --card: #f7f3ec; --ink: #1d1a16; --muted: #6a6359; --line: #d6cfc3; --is: #9a3412;
  font: 12px system-ui, "Segoe UI", Roboto, "Noto Sans", "PingFang SC", "Noto Sans CJK SC", sans-serif }
@media (prefers-color-scheme: dark) {
  svg { --panel: #1e1b18; --card: #2a2622; --ink: #f2ede6; --muted: #b9b0a4; --line: #4a433b; --is: #fdba74 } }
.panel { fill: var(--panel) } .card { fill: var(--card); stroke: var(--line) } .text { fill: var(--muted) }
.name { fill: var(--is); font: 600 13px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace }
.arrow { fill: none; stroke: var(--line); stroke-width: 1.5 }
"""


@dataclass(frozen=True)
class Card:
    """A row of the table."""

    names: tuple[str, ...]
    text: str

    @property
    def rooms(self) -> set[str]:
        return {name.removesuffix("/").removesuffix(".py") for name in self.names}


def cards(page: str) -> list[Card]:
    """The rows of the page's first table, with the first clause of what each holds."""
    text = (ROOT / "docs" / page).read_text("utf-8").split("\n|---|---|---|\n")[1].split("\n\n")[0]
    found = []
    for row in text.splitlines():
        names, holds, _ = (cell.strip() for cell in row.strip("|").split("|"))
        clause = re.split(r"[;；(（]", holds.replace("`", ""))[0].strip()
        found.append(Card(tuple(re.findall(r"`([^`]+)`", names)), clause))
    return found


@cache
def imports(room: str) -> frozenset[str]:
    """The other rooms that one's files import."""
    files = (SOURCE / room).rglob("*.py") if (SOURCE / room).is_dir() else [SOURCE / f"{room}.py"]
    found: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "lianzhi":
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lianzhi."):
                found.add(str(node.module).split(".")[1])
    return frozenset(name for name in found - {room} if not name.startswith("_"))


def levels(rows: list[Card]) -> list[list[Card]]:
    """Cards from the highest level to the lowest, in the order of the table within one; the last row bears all others."""
    *upper, base = rows

    @cache
    def level(card: Card) -> int:
        used = set().union(*(imports(room) for room in card.rooms))
        below = [other for other in upper if other is not card and other.rooms & used]
        return 1 + max((level(other) for other in below), default=0)

    highest = max(level(card) for card in upper)
    return [[card for card in upper if level(card) == at] for at in range(highest, 0, -1)] + [[base]]


def wrapped(text: str, width: float) -> list[str]:
    """Lines that fit the width: a Chinese character is 12 wide, any other some 6.4."""
    lines, used = [""], 0.0
    for word in re.findall(r"[\u3000-\u9fff\uff00-\uffef]|[^\s\u3000-\u9fff\uff00-\uffef]+\s*|\s+", text):
        size = sum(12.0 if char >= "\u3000" else 6.4 for char in word)
        closes = word[0] in "，。、：；）"
        if used + size > width and lines[-1] and not closes:
            lines.append("")
            used = 0.0
        lines[-1] += word
        used += size
    return [line.strip() for line in lines]


def drawn(card: Card, box: tuple[float, float, float, float]) -> str:
    left, top, width, height = box
    names = escape("  ".join(card.names))
    parts = [
        f'<rect class="card" x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="8"/>',
        f'<text class="name" x="{left + 12:g}" y="{top + 21:g}" xml:space="preserve">{names}</text>',
    ]
    for number, line in enumerate(wrapped(card.text, width - 24)):
        y = top + 40 + LINE * number
        parts.append(f'<text class="text" x="{left + 12:g}" y="{y:g}">{escape(line)}</text>')
    return "".join(parts)


def picture(page: str) -> str:
    """The SVG for a page."""
    rows = levels(cards(page))
    parts: list[str] = []
    top = float(EDGE)
    for number, row in enumerate(rows):
        width = (WIDTH - 2 * EDGE - GAP * (len(row) - 1)) / len(row)
        height = 37 + LINE * max(len(wrapped(card.text, width - 24)) for card in row)
        parts += [drawn(card, (EDGE + at * (width + GAP), top, width, height)) for at, card in enumerate(row)]
        top += height
        if number < len(rows) - 1:
            parts.append(f'<path class="arrow" d="M{WIDTH // 2 - 8} {top + 6:g}l8 7l8 -7"/>')
            top += 20
    whole = top + EDGE
    title = "; ".join(" ".join(card.names) for row in rows for card in row)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {whole:g}" width="{WIDTH}" height="{whole:g}" '
        f'role="img"><title>{escape(title)}</title><style>{STYLE}</style>'
        f'<rect class="panel" width="{WIDTH}" height="{whole:g}" rx="10"/>' + "\n".join(parts) + "</svg>\n"
    )


if __name__ == "__main__":
    for name, page in PICTURES.items():
        (ROOT / "docs" / "img" / name).write_text(picture(page), "utf-8")
