"""Text in both languages, and the words that several tables use."""

from __future__ import annotations

from typing import NamedTuple


class Text(NamedTuple):
    """The same in English and in Chinese."""

    en: str
    zh: str


Cell = str | Text
LANGUAGES = ("en", "zh")


def written(cell: Cell, language: str) -> str:
    """What stands on the page of a language.

    >>> written(Text("seeds", "种子数"), "zh"), written("int8", "zh")
    ('种子数', 'int8')
    """
    return str(getattr(cell, language)) if isinstance(cell, Text) else cell


ABSENT = "–"
NOT_YET = Text("not measured yet", "尚未测量")

MODEL = Text("model", "模型")
METHOD = Text("method", "方法")
RUNTIME = Text("runtime", "运行时")
ACCURACY = Text("accuracy, %", "准确率 %")
TOP1 = Text("top-1, %", "top-1 %")
TOP5 = Text("top-5, %", "top-5 %")
LOST = Text("change, points", "变化（百分点）")
AGREES = Text("agrees with float, %", "与浮点一致 %")
FILE = Text("file", "文件")
SMALLER = Text("smaller", "缩小")
PARAMETERS = Text("parameters", "参数量")
SEEDS = Text("seeds", "种子数")
SPEEDUP = Text("speed-up", "加速")
SAMPLES = Text("samples/s", "样本/秒")
BAR = Text("bar", "目标")
MET = Text("met", "达到")
MISSED = Text("missed", "未达到")
DATA = Text("data", "数据")
SOURCE = Text("source", "来源")
FLOAT = Text("float", "浮点")
