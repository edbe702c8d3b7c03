"""Deep Compression: pruned, shared and Huffman-coded models as files, beside the dense model."""

from __future__ import annotations

import statistics

from deep_compression import PLANS, reference, shown

from zoo import cells, text
from zoo.results import Results, Run
from zoo.table import Entry, Table
from zoo.text import Cell, Text

NAME = "deep_compression"
TITLES: dict[str, Text] = {
    "lenet_300_100": Text("LeNet-300-100, Fashion-MNIST", "LeNet-300-100，Fashion-MNIST"),
    "lenet_300_100_two_bits": Text(
        "LeNet-300-100, Fashion-MNIST, more weights of 2 bits",
        "LeNet-300-100，Fashion-MNIST，更多的 2 位权重",
    ),
    "lenet_300_100_flips": Text(
        "LeNet-300-100, Fashion-MNIST, with mirrored images", "LeNet-300-100，Fashion-MNIST，含镜像图片"
    ),
    "lenet_5": Text("LeNet-5, Fashion-MNIST", "LeNet-5，Fashion-MNIST"),
    "resnet20": Text("ResNet-20, CIFAR-10 (JPEG copy)", "ResNet-20，CIFAR-10（JPEG 副本）"),
    "vgg16": Text(
        "VGG-16 with BatchNorm, CIFAR-10 (JPEG copy)", "带 BatchNorm 的 VGG-16，CIFAR-10（JPEG 副本）"
    ),
    "vgg16_magnitude": Text(
        "VGG-16 with BatchNorm, CIFAR-10 (JPEG copy), pruned by magnitude",
        "带 BatchNorm 的 VGG-16，CIFAR-10（JPEG 副本），按大小剪枝",
    ),
    "bert6": Text("BERT, 6 × 384, SST-2", "BERT 6 × 384，SST-2"),
}
VARIANTS = {
    "lenet_300_100_two_bits": ", 2 bits",
    "lenet_300_100_flips": ", mirrored",
    "vgg16_magnitude": ", by magnitude",
}  # in a chart's labels
BOARDS = {"lenet": "fashion_mnist", "resnet": "cifar10", "vgg": "cifar10", "bert": "sst2"}
HEADS: tuple[Cell, ...] = (
    text.MODEL,
    Text("dense, %", "未压缩 %"),
    Text("compressed, %", "压缩后 %"),
    text.LOST,
    Text("weights kept", "保留权重"),
    Text("bits", "位数"),
    Text("float32", "float32 大小"),
    text.FILE,
    text.SMALLER,
    text.BAR,
    text.SEEDS,
)


def table(results: Results, names: tuple[str, ...], name: str, title: Text) -> Table:
    """Some of the benchmark's models; the bar is its own: a ratio, and the points that it may cost."""
    rows: list[tuple[Cell, ...]] = []
    entries: list[Entry] = []
    for model in names:
        dense, runs = results.find(NAME, model, "dense"), results.find(NAME, model, "compressed")
        plan = PLANS[model]
        before = cells.mean(dense, "top1")
        start = results.find(NAME, model, "start")
        base = reference([run["top1"] for run in dense], [run["top1"] for run in start]) if dense else None
        rows.append(
            (
                TITLES[model],
                cells.share(dense, "top1") if dense else text.NOT_YET,
                cells.share(runs, "top1") if runs else text.NOT_YET,
                cells.change(runs, "top1", base),
                f"{100 * (cells.mean(runs, 'kept') or 0):.1f} %" if runs else text.ABSENT,
                shown(runs[0]["bits"]).replace("*", "\\*")
                if runs
                else text.ABSENT,  # no emphasis of Markdown's
                cells.size(cells.mean(runs, "float_bytes")),
                cells.size(cells.mean(runs, "bytes")),
                cells.times(cells.mean(runs, "ratio")),
                _bar(plan.bar, plan.most, base, runs),
                cells.count(runs),
            )
        )
        if dense and runs:
            board = next(board for start, board in BOARDS.items() if model.startswith(start))
            label = TITLES[model].en.partition(",")[0] + VARIANTS.get(model, "")
            entries.append(
                Entry(board, f"{label} dense", "float", before or 0, cells.mean(runs, "float_bytes"))
            )
            entries.append(
                Entry(
                    board,
                    f"{label} packed",
                    "packed",
                    cells.mean(runs, "top1") or 0,
                    cells.mean(runs, "bytes"),
                )
            )
    return Table(
        name=name,
        title=title,
        about=Text(
            "Pruned by magnitude (VGG-16: by what removing a weight costs, where its row does not say otherwise), weights that share values, Huffman codes: what is counted is the file, all in it, and the accuracy of "
            "the model that the file gives back. The dense model had the same epochs, optimizer and augmentation (rate, weight decay and clipping of the pruning "
            "phase differ where the plan says so; shared values are trained by Adam), and is the only teacher; BERT's is the trained model that both began with. What is lost is counted from it, or from the trained model that both began with if that is better.",
            "按幅度剪枝（VGG-16：行中未注明者按去掉权重的代价）、权重共享、哈夫曼编码：大小为文件全部字节，准确率为从文件还原的模型所得。未压缩模型的轮数、优化器与增强相同（剪枝阶段的学习率、权重衰减和裁剪按各计划可有不同；共享的值用 Adam 训练），并且是唯一的教师；BERT 的教师是两者共同的起点。损失以它为准；两者的起点若是更好的已训练模型，则以起点为准。",
        ),
        heads=HEADS,
        rows=tuple(rows),
        commands=tuple(f"python benchmarks/deep_compression.py --model {model}" for model in names),
        reads=(NAME,),
        entries=tuple(entries),
    )


def _bar(ratio: float, most: float, base: float | None, runs: list[Run]) -> Text:
    """The bar, and whether both halves of it were met."""
    goal = Text(f"{ratio:g}×, at most {most:g} lost", f"{ratio:g}×，至多降 {most:g}")
    if base is None or not runs:
        return goal
    lost = 100 * (base - statistics.mean(run["top1"] for run in runs))
    verdict = cells.verdict(statistics.mean(run["ratio"] for run in runs) >= ratio and lost <= most + 1e-9)
    return Text(f"{goal.en}: {verdict.en}", f"{goal.zh}:{verdict.zh}")


def images(results: Results) -> Table:
    """The CNNs and LeNets."""
    names = tuple(name for name in PLANS if name != "bert6")
    return table(results, names, "deep-compression", Text("Deep Compression: CNNs", "Deep Compression：CNN"))


def sst2(results: Results) -> Table:
    """The text classifier."""
    title = Text("Deep Compression: BERT on SST-2", "Deep Compression：SST-2 上的 BERT")
    return table(results, ("bert6",), "deep-compression-bert", title)
