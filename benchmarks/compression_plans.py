"""How the models of `deep_compression.py` are trained and compressed: epochs, shares of weights, bits, and the bars."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Plan:
    """How a model is trained and compressed. `kept` is the share of its weights that stays."""

    first: float  # epochs before the roads part
    prune: float
    move: float  # epochs in which shared weights still change values
    share: float  # epochs of the values
    kept: float | dict[str, float]  # or patterns of layers' names; the first that matches counts
    bits: float | dict[str, float]  # or patterns, as for kept
    bar: float  # the ratio that is to be reached
    most: float  # points that may be lost
    paper: str
    options: dict[str, Any] = field(default_factory=dict)
    rate: float = (
        1e-4  # of Adam, where centroids are trained: their gradients are sums over thousands of weights
    )
    pruning: dict[str, Any] = field(default_factory=dict)  # in place of options, while it is pruned
    other: Literal["float32", "float16"] = "float32"  # of biases and shared values in the file
    move_rate: float = 1e-3  # of the plan's optimizer, where weights move
    alpha: float = 0.9
    layers: tuple[str, ...] = ()  # modules whose outputs are to be the teacher's as well
    weight: float = 1.0  # of these, beside what the model says
    teacher: Literal["dense", "start"] = "dense"  # start: the trained model that both begin with
    rated: bool = (
        False  # bits are what the codes take a weight, zeros among them, and nothing is pruned before
    )
    criterion: Literal["l1", "hessian"] = "l1"
    feedback: bool = False  # removed weights move underneath and may come back; at SGD's rates they run away


LENET = {"lr": 0.05, "weight_decay": 1e-3, "augment": False}
LENET_PRUNING = {"lr": 0.03, "weight_decay": 5e-4}
LENET_5 = {"lr": 0.03, "weight_decay": 1e-3, "augment": False}
GENTLE = {"lr": 0.01, "clip": 1.0}  # gradients of soft targets are some T times as large as the labels'
ADAMW = {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.05, "warmup": 0.1, "precision": "auto"}
SGD = {"lr": 0.05, "weight_decay": 5e-4, "precision": "auto"}
PAPER = "40x, error 1.64 -> 1.58 % (MNIST)"
BITS = {"fc3": 5, "*": 3}  # the last layer is small, and costs most
LENET_300_100 = Plan(10, 28, 8, 4, 0.115, BITS, 40, 0.1, PAPER, LENET, pruning=LENET_PRUNING, other="float16")
BITS_OF_512 = {"features.2[47].*": 3, "features.3?.*": 3, "features.40.*": 3, "*": 4}
VGG16 = Plan(
    4,
    3.5,
    0,
    0.5,
    0.075,
    {"features.[037].*": 4, "features.10.*": 4, "classifier*": 4, "*": 3},  # 4 up to 128 channels
    60,
    0.5,
    "49x, error 31.50 -> 31.17 % (ImageNet)",
    ADAMW,
    pruning={"weight_decay": 4.0},
    other="float16",
    criterion="hessian",
)
PLANS = {
    "lenet_300_100": LENET_300_100,
    "lenet_300_100_two_bits": replace(LENET_300_100, kept=0.143, bits={"fc3": 5, "*": 2}),
    "lenet_300_100_flips": Plan(20, 60, 0, 20, 0.105, 3, 40, 0.1, PAPER, {**LENET, "augment": True}),
    "lenet_5": Plan(
        10,
        28,
        8,
        4,
        0.105,
        {"conv*": 5, "fc2": 5, "*": 3},  # fc1 has 93 % of the weights
        39,
        0.1,
        "39x, error 0.80 -> 0.74 % (MNIST)",
        LENET_5,
        pruning=GENTLE,
        other="float16",
    ),
    "resnet20": Plan(0, 7, 6, 2, 0.39, 3, 15, 0.5, "-", {**SGD, "lr": 0.02}, other="float16"),
    "vgg16": VGG16,
    "vgg16_magnitude": replace(VGG16, kept=0.06, bits=BITS_OF_512, criterion="l1", pruning={}),
    "bert6": Plan(
        0,
        0,
        1.0,
        0.5,
        1.0,
        {"*word_embeddings*": 1.84, "*": 3.44},  # the table is half of all weights, and misses them least
        12,
        0.5,
        "-",
        {"optimizer": "adamw", "lr": 5e-5, "batch_size": 32, "clip": 1.0, "precision": "auto"},
        other="float16",
        move_rate=5e-5,
        alpha=1.0,
        layers=("bert.embeddings", *(f"bert.encoder.layer.{index}" for index in range(6))),
        teacher="start",
        rated=True,
    ),
}
ZOO = {
    "lenet_300_100_flips": "lenet_300_100",
    "lenet_300_100_two_bits": "lenet_300_100",
    "lenet_5": "lenet5",
    "vgg16": "vgg16_bn_cifar",
    "vgg16_magnitude": "vgg16_bn_cifar",
}
ONE_DENSE = ("resnet20", "vgg16", "vgg16_magnitude", "bert6")  # one dense training serves all seeds


def short(plan: Plan) -> Plan:
    """One epoch of each phase that there is."""
    phases = {name: min(1.0, getattr(plan, name)) for name in ("first", "prune", "move", "share")}
    return replace(plan, **phases)
