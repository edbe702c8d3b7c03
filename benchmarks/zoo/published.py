"""What others published, from `published.yaml`: their figures beneath a table of ours, with the source of each row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from zoo import text
from zoo.table import markdown
from zoo.text import Cell, Text

FILE = Path(__file__).with_name("published.yaml")
WORDS = {  # heads of published tables, in Chinese
    "model": "模型",
    "models": "模型",
    "of": "总数",
    "pruned": "可剪枝",
    "method": "方法",
    "criterion": "准则",
    "student": "学生",
    "data": "数据",
    "layers": "层数",
    "width/FFN": "宽/FFN",
    "parameters": "参数量",
    "accuracy, %": "准确率 %",
    "top-1, %": "top-1 %",
    "top-5, %": "top-5 %",
    "before, %": "之前 %",
    "after, %": "之后 %",
    "dense, %": "未压缩 %",
    "compressed, %": "压缩后 %",
    "channels removed": "剪枝率",
    "fewer MACs": "MACs 减少",
    "float32": "float32 大小",
    "file": "文件",
    "smaller": "缩小",
    "samples/s": "样本/秒",
    "speed-up": "加速",
    "MRPC": "MRPC",
    "RTE": "RTE",
    "CoLA": "CoLA",
    "STS-B": "STS-B",
}
TITLE = Text("Published by others: their models, data and machines", "他人公布的数字：各用其模型、数据与机器")


@dataclass(frozen=True)
class Published:
    """Rows of others for one table of ours; the first cell of a row is the key of its source."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    note: Text | None = None


@cache
def data() -> dict[str, Any]:
    """The file."""
    found: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return found


def of(name: str) -> Published | None:
    """What stands beneath a table; None where nothing does.

    Raises:
        ValueError: a row has too many or too few cells, a source is not named, or a head has no Chinese word.
    """
    found = data()["tables"].get(name)
    if found is None:
        return None
    heads = tuple(found["heads"])
    rows = tuple(tuple(row) for row in found["rows"])
    for row in rows:
        if len(row) != len(heads) + 1:
            raise ValueError(
                f"published.yaml, {name}: {row} has {len(row) - 1} figures, the head {len(heads)}"
            )
        if row[0] not in data()["sources"]:
            raise ValueError(f"published.yaml, {name}: no source is called {row[0]!r}")
    unknown = [head for head in heads if head not in WORDS]
    if unknown:
        raise ValueError(f"published.yaml, {name}: no Chinese word for {', '.join(unknown)}")
    return Published(heads, rows, Text(**found["note"]) if "note" in found else None)


def section(name: str, language: str) -> list[str]:
    """The paragraphs beneath a table of ours."""
    found = of(name)
    if found is None:
        return []
    heads: list[Cell] = [Text(head, WORDS[head]) for head in found.heads]
    rows = [
        [text.ABSENT if cell is None else cell for cell in row[1:]] + [_link(row[0])] for row in found.rows
    ]
    title = text.written(TITLE, language)
    parts = [f"**{title}.**" if language == "en" else f"**{title}。**"]
    if found.note:
        parts[0] += f" {text.written(found.note, language)}"
    return [*parts, markdown([*heads, text.SOURCE], rows, language)]


def _link(source: str | None) -> str:
    return f"[{data()['sources'][source]['short']}][{source}]"


def sources() -> list[str]:
    """The list of all sources, and the addresses that the tables refer to."""
    found = data()["sources"]
    lines = [f"- [{one['title']}][{name}]" for name, one in found.items()]
    return ["\n".join(lines), "\n".join(f"[{name}]: {one['url']}" for name, one in found.items())]
