"""All files of the zoo, by their path below the folder of documentation."""

from __future__ import annotations

from zoo import charts
from zoo.boards import BOARDS, Board
from zoo.page import page, tables
from zoo.results import Results
from zoo.table import Entry, markdown
from zoo.text import LANGUAGES, Text, written

PAGES = {"en": "model_zoo.md", "zh": "zh/model_zoo.md"}
IMAGES = {"en": "img", "zh": "../img"}  # as the page of a language sees the folder
FRONT = Text("On the front", "前沿上的条目")
ACCURACY = Text("accuracy", "准确率")
AGAINST = Text(
    "{board}: accuracy against {axis}; {count} models, of which on the front: {front}",
    "{board}：准确率与{axis}；{count} 个模型，前沿上有：{front}",
)


def book(results: Results) -> dict[str, str]:
    """The pages and charts that the results give."""
    entries = [entry for table, _ in tables(results).values() for entry in table.entries]
    made: dict[str, str] = {}
    for language in LANGUAGES:
        for board in BOARDS:
            drawn = charts.files(board, _on(board, entries), language)
            made |= {f"img/{name}": content for name, content in drawn.items()}
        made[PAGES[language]] = page(
            results, language, lambda section, language: shown(section, entries, language)
        )
    return made


def shown(section: str, entries: list[Entry], language: str) -> list[str]:
    """The paragraphs that show the charts of a section: the pictures, and the front in words."""
    parts: list[str] = []
    for board in (board for board in BOARDS if board.section == section):
        names = list(charts.files(board, _on(board, entries), language))
        if not names:
            continue
        fronts = charts.printed(board, _on(board, entries))
        pictures = [
            f"![{_words(board, entries, index, language)}]({IMAGES[language]}/{name})"
            for index, name in enumerate(names)
        ]
        parts += [f"#### {written(board.title, language)}", " ".join(pictures)]
        if written(board.about, language):
            parts.append(written(board.about, language))
        for title, rows in fronts:
            parts.append(markdown([FRONT, title, ACCURACY], rows, language))
    return parts


def _words(board: Board, entries: list[Entry], index: int, language: str) -> str:
    """What a picture shows, for those who do not see it."""
    which = [found for found in charts.of(board, _on(board, entries)).values() if len(found[0]) > 1][index]
    _, rows = charts.printed(board, _on(board, entries))[index]
    front = "; ".join(f"{row[0]} ({row[1]}, {row[2]})" for row in rows)
    words = {
        "board": written(board.title, language),
        "axis": written(which[2], language),
        "count": len(which[0]),
        "front": front,
    }
    return written(AGAINST, language).format(**words)


def _on(board: Board, entries: list[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.board == board.name]
