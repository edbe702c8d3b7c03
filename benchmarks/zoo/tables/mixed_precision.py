"""int8 and 4-bit weights mixed in one file, for a size or by accuracy control."""

from __future__ import annotations

from quantization_mixed import BUDGETS, MAX_DROP

from zoo import cells, text
from zoo.results import Results
from zoo.table import Entry, Table
from zoo.text import Cell, Text

TITLE = Text("Mixed precision: ResNet-20 on CIFAR-10", "混合精度：CIFAR-10 上的 ResNet-20")
ABOUT = Text(
    "Which layers get 4-bit weights is chosen from a table of sensitivities for a file's size, or by accuracy control. ResNet-20 "
    "fine-tuned for one epoch, test images (JPEG copy), the module with quantizers; bytes are those of the ONNX file.",
    "哪些层用 4 位权重由敏感度表按文件大小选出，或由准确率控制决定。ResNet-20 微调一轮，测试图片（JPEG 副本），带量化器的模块；字节为 ONNX 文件大小。",
)
HEADS: tuple[Cell, ...] = (
    Text("weights", "权重"),
    text.TOP1,
    text.LOST,
    text.FILE,
    Text("layers", "层"),
    Text("runs", "次数"),
)


def table(results: Results) -> Table:
    """ResNet-20 with a mixture of int8 and int4 layers."""
    name = "quantization_mixed"
    wanted: dict[str, Cell] = {
        "float": text.FLOAT,
        "int8": Text("int8 weights", "int8 权重"),
        "int4": Text("4-bit weights", "4 位权重"),
    }
    for share in BUDGETS:
        wanted[f"mixed, {share:g} of the float bytes"] = Text(
            f"mixed, {share:g} of the float bytes", f"混合，浮点字节的 {share:g}"
        )
    wanted[f"int4, at most {MAX_DROP:g} lost"] = Text(
        f"4-bit weights, at most {100 * MAX_DROP:g} point lost on validation data",
        f"4 位权重，验证集至多降 {100 * MAX_DROP:g} 个点",
    )
    rows: list[tuple[Cell, ...]] = []
    entries = []
    before = cells.mean(results.find(name, "float"), "top1")
    for key, label in wanted.items():
        runs = results.find(name, key)
        layers = runs[0].get("layers", {}) if runs else {}
        rows.append(
            (
                label,
                cells.share(runs, "top1") if runs else text.NOT_YET,
                cells.change(runs, "top1", before) if key != "float" else text.ABSENT,
                cells.size(cells.mean(runs, "bytes")),
                ", ".join(f"{count} {kind}" for kind, count in sorted(layers.items())) or text.ABSENT,
                cells.count(runs),
            )
        )
        if runs and key != "float":
            entries.append(
                Entry(
                    "cifar10", f"ResNet-20 {key.partition(',')[0]}", "low", runs[0]["top1"], runs[0]["bytes"]
                )
            )
    return Table(
        name="mixed-cifar10",
        title=TITLE,
        about=ABOUT,
        heads=HEADS,
        rows=tuple(rows),
        commands=(
            "python benchmarks/quantization_qat.py --model resnet20",
            "python benchmarks/quantization_mixed.py",
        ),
        reads=(name,),
        entries=tuple(entries),
    )
