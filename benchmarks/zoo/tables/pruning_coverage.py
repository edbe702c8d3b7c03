"""How many models can be pruned, and how exact that is."""

from __future__ import annotations

from pruning_coverage import EXACT, LISTS, RATIOS

from lianzhi.report import format
from zoo import text
from zoo.results import Results
from zoo.table import Table
from zoo.text import Cell, Text

SHOWN: dict[str, Cell] = {
    "zoo": Text("CNNs and multi-layer networks of the zoo", "模型库中的 CNN 与多层网络"),
    "transformers": Text("architectures of transformers", "transformers 的架构"),
    "vision": Text("all of torchvision 0.29.1", "torchvision 0.29.1 全部"),
}


def table(results: Results) -> Table:
    """A row a list of models."""
    rows: list[tuple[Cell, ...]] = []
    for which in LISTS:
        runs = [
            run
            for parts in results.keys(f"pruning_coverage_{which}")
            for run in results.find(f"pruning_coverage_{which}", *parts)
        ]
        good = [run for run in runs if run["ok"]]
        if not good:
            rows.append(
                (SHOWN[which], str(len(runs)) if runs else text.ABSENT, text.NOT_YET, *(text.ABSENT,) * 3)
            )
            continue
        made = [run["ratios"][str(ratio)] for run in good for ratio in RATIOS]
        seconds = sorted(
            run["ratios"]["0.5"]["plan_seconds"] + run["ratios"]["0.5"]["surgery_seconds"] for run in good
        )
        rows.append(
            (
                SHOWN[which],
                str(len(runs)),
                str(len(good)),
                f"{max(one['error'] for one in made):.1e}",
                f"{max(one['onnx_error'] for one in made):.1e}",
                format.seconds(seconds[len(seconds) // 2]),
            )
        )
    shares = " ".join(f"{100 * ratio:g} %" for ratio in RATIOS)
    return Table(
        name="pruning-coverage",
        title=Text("What can be pruned", "哪些模型可以剪枝"),
        about=Text(
            f"Every model at {shares.replace(' % ', ' % and ')} of its channels, with random weights: planned, cut, proved against the original with the removed "
            f"channels zeroed (at most {EXACT:g} apart), trained for a step, exported to ONNX and reloaded. The largest errors of all.",
            f"每个模型用随机权重剪去 {shares.replace(' % ', ' % 与 ')} 的通道：规划、切除、与将被剪通道置零的原模型比对（至多相差 {EXACT:g}）、训练一步、导出 ONNX 并重新加载。误差取全部中的最大值。",
        ),
        heads=(
            Text("models", "模型"),
            Text("of", "总数"),
            Text("pruned", "可剪枝"),
            Text("largest error", "最大误差"),
            Text("in ONNX", "ONNX 中"),
            Text("plan and surgery, median", "规划与切除，中位数"),
        ),
        rows=tuple(rows),
        commands=("make coverage", "make coverage-vision"),
        reads=tuple(f"pruning_coverage_{which}" for which in LISTS),
    )
