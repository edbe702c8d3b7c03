"""Quantization-aware training beside calibration alone."""

from __future__ import annotations

from quantization_qat import METHODS

from zoo import cells, text
from zoo.results import Results, Run
from zoo.table import Table
from zoo.text import Cell, Text

NAME = "quantization_qat"
TITLES: dict[str, Cell] = {
    "resnet20": "ResNet-20",
    "resnet20, int4": Text("ResNet-20, 4-bit weights", "ResNet-20,4 位权重"),
    "resnet56": "ResNet-56",
    "resnet56 of 10 epochs": Text("ResNet-56, fine-tuned for 10 epochs", "ResNet-56，微调 10 轮"),
    "bert6": "BERT, 6 × 384",
}
SHOWN: dict[str, Cell] = {
    "float": text.FLOAT,
    "ptq": Text("calibrated", "仅校准"),
    "qat": "QAT",
    "qat, a tenth of the channels": Text("QAT of a tenth of the channels", "QAT，仅十分之一通道"),
    "qat, the float model's outputs alone": Text(
        "QAT, the float model's outputs alone", "QAT，仅用浮点模型的输出"
    ),
}


IMAGES = (
    "--model resnet20 --epochs 0.25 --methods qat",
    "--model resnet20 --epochs 0.25 --methods qat --weights int4",
    "--model resnet56 --epochs 0.25 --methods qat --dense-epochs 10",
)
SST2 = (
    "--model bert6 --epochs 0.25 --methods qat",
    '--model bert6 --epochs 0.25 --lr 5e-5 --methods "qat, the float model\'s outputs alone"',
    '--model bert6 --epochs 1 --lr 5e-5 --methods "qat, the float model\'s outputs alone"',
)


def table(
    results: Results, models: tuple[str, ...], name: str, title: Text, commands: tuple[str, ...]
) -> Table:
    """Some models with everything on record of them, and each method that is not."""
    rows: list[tuple[Cell, ...]] = []
    on_record = dict.fromkeys(parts[0] for parts in results.keys(NAME) if parts[0].startswith(models))
    for model in on_record or models:
        dense = results.find(NAME, model, "float")
        before = cells.mean(dense, "top1")
        for method in ("float", "ptq", *METHODS):
            groups = _groups(results, model, method)
            if not groups and method not in ("float", "ptq", "qat"):
                continue
            for how, runs in groups.items() or {"": []}.items():
                rows.append(
                    (
                        TITLES.get(model, model),
                        SHOWN[method],
                        how or text.ABSENT,
                        cells.share(runs, "top1") if runs else text.NOT_YET,
                        cells.change(runs, "top1", before) if method != "float" else text.ABSENT,
                        cells.share(runs, "agreement"),
                        cells.count(runs),
                    )
                )
    return Table(
        name=name,
        title=title,
        about=Text(
            "The calibrated model is trained with its quantizers, the float model as the teacher; step sizes are learned. Accuracy is of "
            "the deployed file in ONNX Runtime on the test split (SST-2: dev); the epoch that is kept is chosen on a part cut off the "
            "training data. Agreement is that of the file with the module that was trained.",
            "在校准后的模型上带量化器训练，以浮点模型为教师，步长也参与学习。准确率为部署文件在 ONNX Runtime 中、测试集（SST-2 为 dev）上的结果；"
            "保留哪一轮由训练数据切出的部分决定。一致率为文件与所训练模块之间的一致率。",
        ),
        heads=(
            text.MODEL,
            text.METHOD,
            Text("epochs", "轮数"),
            text.ACCURACY,
            text.LOST,
            Text("file agrees with module, %", "文件与模块一致 %"),
            text.SEEDS,
        ),
        rows=tuple(rows),
        commands=tuple(f"python benchmarks/quantization_qat.py {options}" for options in commands),
        reads=(NAME,),
    )


def _groups(results: Results, model: str, method: str) -> dict[str, list[Run]]:
    """The runs of a method by how they were trained: epochs, and the rate where it is not the default."""
    found: dict[str, list[Run]] = {}
    for parts in results.keys(NAME):
        if parts[:2] == (model, method):
            how = [part.removesuffix(" epochs") for part in parts[2:-1] if part]
            found.setdefault(", ".join(how), []).extend(results.find(NAME, *parts))
    return found


def images(results: Results) -> Table:
    """The ResNets."""
    title = Text("Quantization-aware training: ResNets on CIFAR-10", "量化感知训练：CIFAR-10 上的 ResNet")
    return table(results, ("resnet20", "resnet56"), "qat-cifar10", title, IMAGES)


def sst2(results: Results) -> Table:
    """The text classifier."""
    title = Text("Quantization-aware training: BERT on SST-2", "量化感知训练：SST-2 上的 BERT")
    return table(results, ("bert6",), "qat-sst2", title, SST2)
