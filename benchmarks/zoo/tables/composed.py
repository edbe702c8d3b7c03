"""Whole chains: the original and what a recipe makes of it."""

from __future__ import annotations

from typing import Any

from composed import FIRST

from lianzhi.report import Report, compare, format
from zoo import cells, text
from zoo.results import Results, Run
from zoo.table import Entry, Table
from zoo.text import Cell, Text

NAME = "composed"
BOARDS = {"sst2": "sst2", "cifar10": "cifar10", "fashion_mnist": "fashion_mnist"}


def table(results: Results) -> Table:
    """Every recipe of the benchmark, those without a run as well."""
    rows: list[tuple[Cell, ...]] = []
    entries: list[Entry] = []
    for recipe in FIRST:
        runs = results.find(NAME, recipe)
        if not runs:
            rows.append((f"`{recipe}`", text.ABSENT, text.ABSENT, text.NOT_YET, *(text.ABSENT,) * 8))
            continue
        first, last = ([run["rows"][index] for run in runs] for index in (0, -1))
        speeds = [_speeds(run) for run in runs]
        rows.append(
            (
                f"`{recipe}`",
                " → ".join(row["step"] for row in runs[0]["rows"][1:]),
                cells.share(first, "value"),
                cells.share(last, "value"),
                cells.change(last, "value", cells.mean(first, "value")),
                format.count(cells.mean(last, "parameters")),
                cells.size(cells.mean(last, "bytes")),
                cells.ratio(cells.mean(first, "bytes"), cells.mean(last, "bytes")),
                format.milliseconds(cells.mean(last, "latency_ms")),
                cells.times(cells.mean(speeds, "eager")),
                cells.times(cells.mean(speeds, "float")),
                cells.count(runs),
            )
        )
        entries += _entries(recipe, runs, speeds)
    return Table(
        name="composed",
        title=Text("Composed recipes", "组合配方"),
        about=Text(
            "A trained model goes in, and one recipe prunes, distils and quantizes it and picks the runtime. Accuracy is of the reported "
            "split by the file that ships; speed at batch 1 is against the original in eager PyTorch, and against the fastest float of the "
            "original in any runtime of the machine.",
            "输入一个训练好的模型，由一份配方完成剪枝、蒸馏、量化并选择运行时。准确率为部署文件在报告集上的结果；批 1 的加速比分别相对 PyTorch 即时执行的原始模型，"
            "以及本机所有运行时中最快的浮点原始模型。",
        ),
        heads=(
            Text("recipe", "配方"),
            Text("steps", "步骤"),
            Text("before, %", "之前 %"),
            Text("after, %", "之后 %"),
            text.LOST,
            text.PARAMETERS,
            text.FILE,
            text.SMALLER,
            Text("latency", "延迟"),
            Text("over eager", "比即时执行"),
            Text("over the best float", "比最快浮点"),
            text.SEEDS,
        ),
        rows=tuple(rows),
        commands=("python benchmarks/composed.py",),
        reads=(NAME,),
        entries=tuple(entries),
    )


def _speeds(run: Run) -> dict[str, Any]:
    """How much faster the result is than the original in eager PyTorch, and than its fastest float."""
    report = Report.from_json({"rows": run["rows"]})
    shipped = compare.deployed(compare.final(report))
    if shipped is None:
        return {}
    base = compare.baselines(report, shipped)
    return {
        "eager": compare.speedup(base["eager"], shipped),
        "float": compare.speedup(base["float"], shipped),
        "same": compare.speedup(base["same"], shipped),
    }


def _entries(recipe: str, runs: list[Run], speeds: list[dict[str, Any]]) -> list[Entry]:
    """The result of a recipe as a point; on the text board its time is a share of the best float's."""
    last = [run["rows"][-1] for run in runs]
    board = BOARDS.get(runs[0]["task"])
    if board is None:
        return []
    best = cells.mean(speeds, "float")
    time = (1 / best if best else None) if board == "sst2" else cells.mean(last, "latency_ms")
    return [
        Entry(board, recipe, "composed", cells.mean(last, "value") or 0.0, cells.mean(last, "bytes"), time)
    ]
