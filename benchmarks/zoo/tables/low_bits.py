"""4-bit weights, rounded in several ways: EfficientNet-Lite0."""

from __future__ import annotations

from quantization_lite0 import RUNS

from zoo import cells, text
from zoo.results import Results
from zoo.table import Table
from zoo.text import Cell, Text

TITLE = Text(
    "4-bit weights: EfficientNet-Lite0 on ImageNet images",
    "4 位权重：ImageNet 图片上的 EfficientNet-Lite0",
)
ABOUT = Text(
    "W8A8 is int8 throughout; W4 is 4-bit weights with float activations, rounded to the nearest or by a technique. The module with "
    "quantizers, not a file; 100 images calibrate, 400 others are evaluated, and agreement with float is what counts.",
    "W8A8 为全 int8；W4 为 4 位权重、浮点激活，就近取整或用某种技术取整。评估带量化器的模块而非文件；100 张图片校准，另 400 张评估，以与浮点的一致率为准。",
)
HEADS: tuple[Cell, ...] = (
    Text("configuration", "配置"),
    text.AGREES,
    text.BAR,
    text.TOP1,
    text.LOST,
    Text("runs", "次数"),
)


def table(results: Results) -> Table:
    """EfficientNet-Lite0, weights alone."""
    name = "quantization_lite0"
    rows: list[tuple[Cell, ...]] = []
    for configuration, (_, bar) in RUNS.items():
        runs = results.find(name, configuration)
        before = cells.mean(runs, "float_top1")
        agreement = cells.mean(runs, "agreement")
        goal: Cell = text.ABSENT if bar is None else f"{100 * bar:.0f} %"
        if bar is not None and agreement is not None:
            verdict = cells.verdict(agreement >= bar)
            goal = Text(f"{goal}: {verdict.en}", f"{goal}:{verdict.zh}")
        rows.append(
            (
                configuration,
                cells.share(runs, "agreement") if runs else text.NOT_YET,
                goal,
                cells.share(runs, "top1"),
                cells.change(runs, "top1", before),
                cells.count(runs),
            )
        )
    return Table(
        name="low-bits-imagenet",
        title=TITLE,
        about=ABOUT,
        heads=HEADS,
        rows=tuple(rows),
        commands=("python benchmarks/quantization_lite0.py",),
        reads=(name,),
    )
