"""ResNet-56 at two reductions of MACs, by Lianzhi and by Torch-Pruning in the same run."""

from __future__ import annotations

from pruning_resnet56 import METHODS

from lianzhi.report import format
from zoo import cells, text
from zoo.results import Results
from zoo.table import Entry, Table
from zoo.text import Cell, Text

FLOAT32 = 4  # bytes of a weight
SHOWN: dict[str, Cell] = {
    "lianzhi": "Lianzhi",
    "torch-pruning": Text("Torch-Pruning, in the same run", "Torch-Pruning（同一次运行）"),
    "lianzhi + kd": Text("Lianzhi, distilled", "Lianzhi，蒸馏"),
}
TITLE = Text("ResNet-56 on CIFAR-10, beside Torch-Pruning", "CIFAR-10 上的 ResNet-56，与 Torch-Pruning 对照")
ABOUT = Text(
    "Channels inside the blocks go until so few MACs remain; then both are fine-tuned by the same loop with the same options and "
    "order, ours once more with distillation from the dense model. Test images, JPEG copy. The speed-up is of ONNX Runtime float32 "
    "at batch 64, timed in turns with the dense model.",
    "剪去残差块内部的通道，直到只剩这么多 MACs；随后两者用同样的循环、选项与顺序微调，我们的另以未剪枝模型为教师蒸馏一次。测试图片，JPEG 副本。"
    "加速比为 ONNX Runtime float32、批 64，与未剪枝模型交替计时。",
)
HEADS: tuple[Cell, ...] = (
    text.METHOD,
    Text("fewer MACs", "MACs 减少"),
    text.PARAMETERS,
    text.TOP1,
    text.LOST,
    Text("speed-up, batch 64", "加速，批 64"),
    Text("epochs", "轮数"),
    text.SEEDS,
)


def table(results: Results) -> Table:
    """The same reductions by Lianzhi and by Torch-Pruning."""
    name = "pruning_resnet56"
    dense = results.find(name, "dense")
    before = cells.mean(dense, "top1")
    rows: list[tuple[Cell, ...]] = [
        (
            Text("(dense)", "（未剪枝）"),
            "1×",
            text.ABSENT,
            cells.share(dense, "top1") if dense else text.NOT_YET,
            *(text.ABSENT,) * 4,
        )
    ]
    entries = []
    for reduction, epochs in _settings(results) or [("2.1", text.ABSENT), ("2.57", text.ABSENT)]:
        for method in METHODS:
            keys = [
                parts
                for parts in results.keys(name)
                if parts[:2] == (method, reduction) and parts[-1] == epochs
            ]
            runs = [run for parts in keys for run in results.find(name, *parts)]
            speed = results.one(name, f"speed: {method.removesuffix(' + kd')}", reduction) or {}
            rows.append(
                (
                    SHOWN[method],
                    cells.times(cells.mean(runs, "reduction")),
                    format.count(cells.mean(runs, "parameters")),
                    cells.share(runs, "top1") if runs else text.NOT_YET,
                    cells.change(runs, "top1", before),
                    cells.times(speed.get("speed_up")),
                    epochs.partition(" ")[0],
                    cells.count(runs),
                )
            )
            if runs:
                label = f"ResNet-56 pruned {reduction}×, {method}"
                size = FLOAT32 * (cells.mean(runs, "parameters") or 0)
                entries.append(
                    Entry(
                        "cifar10",
                        label,
                        "peer" if method == "torch-pruning" else "pruned",
                        cells.mean(runs, "top1") or 0,
                        size,
                    )
                )
    return Table(
        name="pruning-resnet56",
        title=TITLE,
        about=ABOUT,
        heads=HEADS,
        rows=tuple(rows),
        commands=("make bench-pruning",),
        reads=(name,),
        entries=tuple(entries),
    )


def _settings(results: Results) -> list[tuple[str, str]]:
    """Reductions and epochs on record, in order."""
    found = {
        (parts[1], parts[3])
        for parts in results.keys("pruning_resnet56")
        if len(parts) == 4 and parts[0] in METHODS
    }
    return sorted(found, key=lambda pair: (float(pair[0]), float(pair[1].partition(" ")[0])))
