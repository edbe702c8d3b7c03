"""What the coder makes of models of ImageNet's size: ratio, speed, memory."""

from __future__ import annotations

from deep_compression_coder import MODELS

from lianzhi.report import format
from zoo import cells, text
from zoo.results import Results
from zoo.table import Table
from zoo.text import Cell, Text

NAME = "deep_compression_coder"
TITLES: dict[str, Cell] = {
    "alexnet": "AlexNet",
    "vgg16": "VGG-16",
    "vgg16_dense": Text("VGG-16, not pruned, 5 bits", "VGG-16，未剪枝，5 位"),
    "densenet121": Text("DenseNet-121, 5 bits", "DenseNet-121，5 位"),
}


def table(results: Results) -> Table:
    """Random weights at the paper's densities."""
    rows: list[tuple[Cell, ...]] = []
    for model in MODELS:
        run = results.one(NAME, model)
        rows.append(
            (TITLES[model], text.NOT_YET, *(text.ABSENT,) * 8)
            if run is None
            else (
                TITLES[model],
                format.count(run["weights"]),
                f"{100 * run['kept']:.1f} %",
                cells.size(run["bytes"]),
                cells.times(run["ratio"]),
                f"{100 * run['overhead']:.1f} %",
                format.seconds(run["pack_seconds"]),
                cells.times(run["peak_of_float"]),
                Text(
                    f"{run['weights_a_second'] / 1e6:,.0f} M/s", f"{run['weights_a_second'] / 1e6:,.0f} M/秒"
                ),
                format.seconds(run["load_seconds"] - run["load_seconds_safetensors"]),
            )
        )
    return Table(
        name="deep-compression-coder",
        title=Text(
            "Deep Compression at ImageNet's size: the coder alone",
            "ImageNet 规模的 Deep Compression：仅编码器",
        ),
        about=Text(
            "Random weights, pruned to the paper's share of each layer and shared with its bits (VGG-16 once more not pruned, which is the most "
            "that packing can be asked for; DenseNet-121, of many small tensors, with two fifths kept): what size alone gives, how fast a file is made and read, and how far its bits are above the "
            "entropy. There is no accuracy, since nothing was trained.",
            "随机权重，按论文逐层的密度剪枝并以论文的位数共享（VGG-16 另有一行未剪枝，是打包最费力的情形；DenseNet-121 由许多小张量组成，保留五分之二）：只看大小能得到的压缩比、打包与读取的速度，以及编码位数高出熵多少。未训练，故无准确率。",
        ),
        heads=(
            text.MODEL,
            Text("weights", "权重数"),
            Text("kept", "保留"),
            text.FILE,
            text.SMALLER,
            Text("above the entropy", "高出熵"),
            Text("packing", "打包用时"),
            Text("peak memory, of the float model", "峰值内存/浮点模型"),
            Text("weights read", "读取速度"),
            Text("longer than safetensors", "比 safetensors 多用"),
        ),
        rows=tuple(rows),
        commands=("python benchmarks/deep_compression_coder.py",),
        reads=(NAME,),
    )
