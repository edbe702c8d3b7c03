"""Post-training quantization: the float file and int8 files in two runtimes, beside the peers' on the same data."""

from __future__ import annotations

from quantization import OURS, PEERS, RUNTIMES, TRANSFORMERS

from zoo import cells, text
from zoo.results import Results, Run
from zoo.table import Entry, Table
from zoo.text import Cell, Text

FILE = "quantization"
NAMES = {
    "resnet20": "ResNet-20",
    "resnet56": "ResNet-56",
    "bert6": "BERT, 6 × 384",
    "lite0": "EfficientNet-Lite0",
}
ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
METHODS: dict[str, Cell] = {
    "float": text.FLOAT,
    "ours": "int8",
    "ours, bias correction": "int8, `bias_correction`",
    "ours, smoothquant": "int8, `smoothquant`",
    "nncf": Text("int8 by NNCF", "NNCF 的 int8"),
    "onnxruntime static": Text("int8 by ONNX Runtime's own tool", "ONNX Runtime 自带工具的 int8"),
}
BUSY = Text(
    "A speed-up is against the fastest float of the same runtime (float32 or bfloat16), both timed in turns; samples a second of float "
    "are those in turns with the int8 file in the row below. The machine did other work meanwhile: a speed-up may be off by a fifth or "
    "more, and samples a second of different rows are not to be compared. Int8 files of one model and runtime are alike but for their "
    "numbers: where their times differ, that is the machine.",
    "加速比以同一运行时中最快的浮点（float32 或 bfloat16）为基准，二者交替计时；浮点的样本/秒取自与下一行 int8 文件的交替计时。期间机器还有别的任务："
    "加速比可能有五分之一或更大的误差，不同行的样本/秒不宜相互比较。同一模型、同一运行时的 int8 文件只有数值不同：它们之间的用时差异来自机器。",
)


def table(results: Results, name: str, cases: tuple[str, ...], title: Text, about: Text, board: str) -> Table:
    """Every runtime and method of some models."""
    batches = ("1",) if "bert6" in cases or "lite0" in cases else ("1", "64")
    heads: list[Cell] = [
        text.MODEL,
        text.RUNTIME,
        text.METHOD,
        text.ACCURACY,
        text.LOST,
        text.AGREES,
        text.FILE,
        text.SMALLER,
    ]
    for batch in batches:
        heads += [
            Text(f"samples/s, batch {batch}", f"样本/秒，批 {batch}"),
            Text(f"speed-up, batch {batch}", f"加速，批 {batch}"),
        ]
    rows: list[tuple[Cell, ...]] = []
    entries: list[Entry] = []
    top5 = any(cells.values(results.find(FILE, case), "top5") for case in cases)
    for case in cases:
        for runtime in RUNTIMES:
            base = results.find(FILE, case, runtime, "float")
            beside = results.one(FILE, case, runtime, "ours") or {}
            for method in ("float", *_methods(case), PEERS[runtime]):
                runs = results.find(FILE, case, runtime, method)
                timing = (
                    _timing(beside, "float_ms")
                    if method == "float"
                    else _timing(runs[0] if runs else {}, "ms")
                )
                speeds = _timing(runs[0] if runs else {}, "share")
                cell = [NAMES[case], ENGINES[runtime], METHODS[method], *_figures(runs, base, method)]
                for batch in batches:
                    cell.append(cells.rate(timing.get(batch), int(batch)))
                    cell.append(cells.times(1 / speeds[batch]) if batch in speeds else text.ABSENT)
                if top5:
                    cell.append(cells.share(runs, "top5"))
                rows.append((*cell, cells.count(runs)))
                entries += _entry(case, runtime, method, runs, timing, board)
    return Table(
        name=name,
        title=title,
        about=about,
        heads=(*heads, *((text.TOP5,) if top5 else ()), text.SEEDS),
        rows=tuple(rows),
        commands=("make bench-quantization",),
        reads=(FILE,),
        notes=(BUSY,),
        entries=tuple(entries),
    )


def _figures(runs: list[Run], base: list[Run], method: str) -> list[Cell]:
    """Accuracy and size; what is lost and saved only where there is something to compare with float."""
    accuracy = cells.share(runs, "value") if runs else text.NOT_YET
    size = cells.mean(runs, "bytes")
    if method == "float":
        return [accuracy, text.ABSENT, text.ABSENT, cells.size(size), text.ABSENT]
    return [
        accuracy,
        cells.change(runs, "value", cells.mean(base, "value")),
        cells.share(runs, "agreement"),
        cells.size(size),
        cells.ratio(cells.mean(base, "bytes"), size),
    ]


def _methods(case: str) -> list[str]:
    return [name for name in OURS if name != "ours, smoothquant" or case in TRANSFORMERS]


def _timing(run: Run, key: str) -> dict[str, float]:
    """A time or a share by batch size."""
    return {batch: found[key] for batch, found in run.get("latencies", {}).items()}


def _entry(
    case: str, runtime: str, method: str, runs: list[Run], timing: dict[str, float], board: str
) -> list[Entry]:
    """The point of a chart. On the text board time is a share of the float original's, elsewhere milliseconds."""
    accuracy = cells.mean(runs, "value")
    if accuracy is None:
        return []
    kind = "float" if method == "float" else "int8" if method.startswith("ours") else "peer"
    made = {"nncf": "NNCF", "onnxruntime static": "ONNX Runtime's tool"}.get(method, ENGINES[runtime])
    label = f"{NAMES[case].partition(',')[0]} {'float' if kind == 'float' else 'int8'}, {made}"
    label += {"ours, bias correction": ", bias correction", "ours, smoothquant": ", smoothquant"}.get(
        method, ""
    )
    time = timing.get("1")
    if board == "sst2":
        time = 1.0 if method == "float" else _timing(runs[0], "share").get("1")
    return [Entry(board, label, kind, accuracy, cells.mean(runs, "bytes"), time)]


CIFAR10 = Text(
    "ResNets of the zoo, fine-tuned on the training split, on CIFAR-10's 10,000 test images (a JPEG copy of the data, on which the "
    "published weights lose some points). Means over three calibration sets of 512 images.",
    "模型库中的 ResNet，先在训练集上微调，在 CIFAR-10 的 10,000 张测试图片上评估（数据为 JPEG 副本，公开权重在其上会低几个点）。为三组各 512 张校准图片的均值。",
)
IMAGENET = Text(
    "400 images of ImageNet (one a class, probably of its training split); another 100 calibrate. Agreement with float is what counts "
    "here: the accuracy of so few images is no accuracy of ImageNet.",
    "400 张 ImageNet 图片（每类一张，可能出自训练集），另 100 张用于校准。此处以与浮点的一致率为准：这么少图片上的准确率不等于 ImageNet 准确率。",
)
SST2 = Text(
    "A 6-layer BERT, 384 wide, fine-tuned on SST-2, on its 872 dev sentences (one is 0.115 points). Means over three calibration "
    "sets of 128 sentences.",
    "6 层、宽 384 的 BERT，在 SST-2 上微调，在 872 个 dev 句子上评估（一句为 0.115 个百分点）。为三组各 128 个校准句子的均值。",
)


def cifar10(results: Results) -> Table:
    """The ResNets."""
    title = Text("Int8 by calibration: ResNets on CIFAR-10", "校准得到的 int8:CIFAR-10 上的 ResNet")
    return table(results, "quantization-cifar10", ("resnet20", "resnet56"), title, CIFAR10, "cifar10")


def imagenet(results: Results) -> Table:
    """EfficientNet-Lite0."""
    title = Text(
        "Int8 by calibration: EfficientNet-Lite0 on ImageNet images",
        "校准得到的 int8:ImageNet 图片上的 EfficientNet-Lite0",
    )
    return table(results, "quantization-imagenet", ("lite0",), title, IMAGENET, "imagenet")


def sst2(results: Results) -> Table:
    """The text classifier."""
    title = Text("Int8 by calibration: BERT on SST-2", "校准得到的 int8:SST-2 上的 BERT")
    return table(results, "quantization-sst2", ("bert6",), title, SST2, "sst2")
