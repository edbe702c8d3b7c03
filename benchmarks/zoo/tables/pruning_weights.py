"""Single weights pruned while ResNet-20 trains: the smallest against those that cost least."""

from __future__ import annotations

from pruning_weights import CRITERIA, DENSE, KEPT

from zoo import cells, text
from zoo.results import Results
from zoo.table import Table
from zoo.text import Cell, Text

NAME = "pruning_weights"


def table(results: Results) -> Table:
    """A row for each share that stays and each criterion."""
    dense = results.find(NAME, DENSE, "1")
    before = cells.mean(dense, "top1")
    rows: list[tuple[Cell, ...]] = [
        (
            "100 %",
            Text("(dense)", "（未剪枝）"),
            cells.share(dense, "top1") if dense else text.NOT_YET,
            text.ABSENT,
            cells.count(dense),
        )
    ]
    for kept in KEPT:
        for criterion in CRITERIA:
            runs = results.find(NAME, criterion, f"{kept:g}")
            rows.append(
                (
                    f"{100 * kept:g} %",
                    f"`{criterion}`",
                    cells.share(runs, "top1") if runs else text.NOT_YET,
                    cells.change(runs, "top1", before),
                    cells.count(runs),
                )
            )
    return Table(
        name="pruning-weights",
        title=Text("Which single weights go", "去掉哪些单个权重"),
        about=Text(
            "ResNet-20 with its published weights on CIFAR-10 (JPEG copy), pruned by one threshold for all layers while it trains for two "
            "epochs: `l1` takes the smallest weights, `hessian` those that cost least to second order. The dense model trains for as long.",
            "使用公开权重的 ResNet-20，CIFAR-10（JPEG 副本），训练两轮的同时以全局阈值剪枝：`l1` 去掉最小的权重，`hessian` 去掉按二阶近似代价最小的权重。"
            "未剪枝的模型训练同样的轮数。",
        ),
        heads=(
            Text("weights kept", "保留权重"),
            Text("criterion", "准则"),
            text.TOP1,
            text.LOST,
            text.SEEDS,
        ),
        rows=tuple(rows),
        commands=("python benchmarks/pruning_weights.py",),
        reads=(NAME,),
    )
