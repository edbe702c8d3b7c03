"""Every pruning criterion at one ratio, without training: what it destroys."""

from __future__ import annotations

import statistics

from pruning_criteria import RATIO

import lianzhi as lz
from zoo import cells, text
from zoo.results import Results
from zoo.table import Table
from zoo.text import Cell, Text

FEWER_MACS = Text("fewer MACs", "MACs 减少")
TITLE = Text("What each pruning criterion destroys", "各剪枝准则的破坏程度")
ABOUT = Text(
    "ResNet-20 with its published weights on CIFAR-10's 10,000 test images (JPEG copy): a fifth of the inner channels of each "
    "block goes, BatchNorm is re-estimated, nothing is trained. ↑ marks what is better than chance: above the mean plus the "
    "deviation of the random draws. All criteria leave the same widths, so one measurement of speed stands for all.",
    "使用公开权重的 ResNet-20，CIFAR-10 的 10,000 张测试图片（JPEG 副本）：每个残差块内部通道剪去五分之一，重新估计 BatchNorm，不做训练。"
    "↑ 表示优于随机：高于随机抽取的均值加标准差。各准则留下的宽度相同，因此速度只测一次。",
)
HEADS: tuple[Cell, ...] = (
    Text("criterion", "准则"),
    text.TOP1,
    text.LOST,
    Text("channels removed", "剪枝率"),
    FEWER_MACS,
    Text("samples/s", "样本/秒"),
    Text("runs", "次数"),
)


def table(results: Results) -> Table:
    """Every criterion on ResNet-20, without training."""
    name = "pruning_criteria"
    dense = results.one(name, "dense")
    timing = results.one(name, "speed") or {}
    before = dense["top1"] if dense else None
    kept, fast = _kept(results), timing.get("pruned_ms")
    rows: list[tuple[Cell, ...]] = [
        (
            Text("(dense)", "（未剪枝）"),
            cells.share([dense], "top1") if dense else text.NOT_YET,
            text.ABSENT,
            text.ABSENT,
            "1×",
            cells.rate(timing.get("original_ms"), timing.get("batch", 1)),
            cells.count([dense] if dense else []),
        )
    ]
    found = {entry: results.find(name, entry) for entry in lz.prune.registry.names() if entry != "random"}
    draws = [run for key in _draws(results) for run in results.find(name, key)]
    chance = [run["top1"] for run in draws]
    found["random"] = draws
    bar = statistics.mean(chance) + statistics.stdev(chance) if len(chance) > 1 else None
    for criterion, runs in sorted(found.items(), key=lambda item: -(cells.mean(item[1], "top1") or 0)):
        applies = not runs or cells.mean(runs, "top1") is not None
        accuracy = cells.mean(runs, "top1")
        top: Cell = cells.share(runs, "top1") if runs else text.NOT_YET
        rows.append(
            (
                f"`{criterion}`" + (" ↑" if bar and accuracy and accuracy > bar else ""),
                top if applies else Text("does not apply", "不适用"),
                cells.change(runs, "top1", before),
                f"{100 * RATIO:g} %" if applies else text.ABSENT,
                cells.times(1 / kept) if kept and applies else text.ABSENT,
                cells.rate(fast, timing.get("batch", 1)) if applies else text.ABSENT,
                cells.count(runs) if applies else text.ABSENT,
            )
        )
    return Table(
        name="pruning-criteria",
        title=TITLE,
        about=ABOUT,
        heads=HEADS,
        rows=tuple(rows),
        commands=("python benchmarks/pruning_criteria.py",),
        reads=(name,),
    )


def _draws(results: Results) -> list[str]:
    return [parts[0] for parts in results.keys("pruning_criteria") if parts[0].startswith("random ")]


def _kept(results: Results) -> float | None:
    """The share of MACs that is left; the same for all."""
    return cells.mean(
        [run for name in lz.prune.registry.names() for run in results.find("pruning_criteria", name)], "macs"
    )
