"""Which entries are drawn together: those whose accuracy is of the same data, and whose time is in one unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lianzhi.report import format
from zoo.text import Text


@dataclass(frozen=True)
class Board:
    """A pair of charts. `section` is where on the page they stand."""

    name: str
    section: str
    title: Text
    time: Text
    write_time: Callable[[float], str]
    about: Text


MILLISECONDS = Text("one image, batch 1", "单张图片，批 1")
SIZES = Text(
    "Where a run kept no file (pruned and distilled models), the size is that of its float32 weights, 4 bytes each.",
    "没有保留文件的运行（剪枝与蒸馏的模型），大小按 float32 权重计，每个 4 字节。",
)
BOARDS = (
    Board(
        "cifar10",
        "image-classification",
        Text("CIFAR-10 (JPEG copy), test images", "CIFAR-10（JPEG 副本），测试图片"),
        MILLISECONDS,
        format.milliseconds,
        SIZES,
    ),
    Board(
        "fashion_mnist",
        "image-classification",
        Text("Fashion-MNIST, test images", "Fashion-MNIST，测试图片"),
        MILLISECONDS,
        format.milliseconds,
        Text("", ""),
    ),
    Board(
        "imagenet",
        "image-classification",
        Text("400 ImageNet images", "400 张 ImageNet 图片"),
        MILLISECONDS,
        format.milliseconds,
        Text(
            "Of so few images, accuracy differs by a point or two by chance.",
            "图片这么少，准确率会有一两个点的偶然差异。",
        ),
    ),
    Board(
        "sst2",
        "text-classification",
        Text("SST-2, dev sentences", "SST-2,dev 句子"),
        Text("share of the float original's time", "与浮点原始模型的时间之比"),
        lambda value: f"{value:.2f}×",
        Text(
            "Time is a share of the float original's in the same runtime (of composed recipes: of its fastest float), at batch 1, taken on a busy machine.",
            "时间（在繁忙的机器上测得）为批 1 下与同一运行时中浮点原始模型之比（组合配方：与其最快的浮点之比）。",
        ),
    ),
)
