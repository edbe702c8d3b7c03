"""Quantization-aware training beside calibration alone and the float model: ResNet-20 and -56 on CIFAR-10, a BERT on SST-2.

    python benchmarks/quantization_qat.py                 # three seeds; what is on record is not done again
    python benchmarks/quantization_qat.py --model bert6 --bert out/sst2-teacher
    python benchmarks/quantization_qat.py --model resnet56 --dense-epochs 10 --device cuda
    python benchmarks/quantization_qat.py --weights int4 --seeds 0

The published weights of the ResNets are fine-tuned first (`--dense-epochs`), since this copy of the images went through
JPEG; the BERT is an artifact that `lianzhi train recipes/sst2-teacher.yaml -o out/sst2-teacher` made. Then for each seed
the calibrated model is trained: the recipe's `quantize: {method: qat}`, with step sizes learned and the float model as the
teacher, and once more with a tenth of each layer's channels. The epoch that is kept is chosen by the part that is cut off
the training data. What is counted is the deployed file in ONNX Runtime on the test split; `agreement` is that of the file
with the module that was trained. A run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from quantization_cases import WORK, Case, make
from records import Records, records_of, spread, trial_options
from torch import nn

import lianzhi as lz
from lianzhi import deploy, distill, files, quantize, train
from lianzhi.distill.methods.teacher import logits_of
from lianzhi.recipe.qat import QAT

TRIAL = 128
METHODS: dict[str, dict[str, Any]] = {
    "qat": {},
    "qat, a tenth of the channels": {"channels": 0.1},
    "qat, the float model's outputs alone": {"alpha": 1.0},
}
TRAINING: dict[str, dict[str, Any]] = {"bert6": {"optimizer": "adamw", "batch_size": 32}}


def predictions(predict: Any, case: Case) -> torch.Tensor:
    """The class of every test sample, in order."""
    with torch.no_grad():
        return torch.cat([logits_of(predict(inputs), "model").argmax(1) for inputs, _ in case.evaluation])


def deployed(quantized: quantize.QuantizedModel, case: Case, file: Path) -> dict[str, Any]:
    """Top-1 of the file, and how often it agrees with the module."""
    quantized.export(file)
    labels = torch.cat([labels for _, labels in case.evaluation])
    found = predictions(deploy.load(file, runtime="onnxruntime"), case)
    module = predictions(deploy.load(quantized.model, runtime="pytorch"), case)
    return {
        "top1": float((found == labels).double().mean()),
        "module_top1": float((module == labels).double().mean()),
        "agreement": float((found == module).double().mean()),
    }


def trained(
    calibrated: quantize.QuantizedModel,
    dense: nn.Module,
    task: lz.Task,
    options: QAT,
    seed: int,
    folder: Path,
    device: str,
) -> tuple[quantize.QuantizedModel, float]:
    """Quantization-aware training with the recipe's options; the model and its seconds."""
    module = quantize.make_trainable(calibrated, lsq=options.lsq, channels=options.channels)
    step = distill.methods.kd.make_step(
        dense, temperature=options.temperature, alpha=options.alpha, loss=task.loss
    )
    history = train.fit(
        module,
        task,
        options,
        step=step,
        seed=seed,
        directory=folder,
        resume=True,
        title=f"{folder.name} {options.channels:g}",
        device=device,
    )
    return quantize.trained(calibrated, module), history.seconds


def of(records: Records, label: str, method: str, epochs: float) -> list[dict[str, Any]]:
    """The records of a method, one a seed."""
    start = f"{label} | {method} | "
    return [
        row
        for key, row in records.items()
        if key.startswith(start) and (method == "ptq" or row["epochs"] == epochs)
    ]


def table(records: Records, label: str, epochs: float) -> str:
    """Means over the seeds on record."""
    dense = records[f"{label} | float"]["top1"]
    lines = ["| model | method | top-1 | lost | seeds | seconds |", "|---|---|---|---|---|---|"]
    lines.append(f"| {label} | float | {dense:.2%} | | | |")
    for method in ("ptq", *METHODS):
        runs = of(records, label, method, epochs)
        if runs:
            tops = [row["top1"] for row in runs]
            lost = f"{100 * (dense - statistics.mean(tops)):.2f} points"
            seconds = statistics.mean(row["seconds"] for row in runs)
            lines.append(f"| {label} | {method} | {spread(tops)} % | {lost} | {len(runs)} | {seconds:.0f} |")
    return "\n".join(lines)


def verdict(records: Records, label: str, epochs: float, case: Case) -> str:
    """The mean of the seeds against the bar: 0.1 points of top-1, one sentence of SST-2."""
    bar = 1 / case.samples if case.name == "bert6" else 0.001
    runs = of(records, label, "qat", epochs)
    if not runs:
        return "no run is on record"
    lost = records[f"{label} | float"]["top1"] - statistics.mean(row["top1"] for row in runs)
    return f"QAT loses {100 * lost:.2f} points; the bar is {100 * bar:.2f}: {'met' if lost <= bar + 1e-9 else 'MISSED'}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet20", choices=("resnet20", "resnet56", "bert6"))
    parser.add_argument("--bert", type=Path, default=Path("out/sst2-teacher"))
    parser.add_argument("--weights", default="int8", choices=("int8", "int4"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--lr", type=float, help="peak learning rate; default: the recipe's")
    parser.add_argument("--dense-epochs", type=float, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--work", type=Path, default=WORK)
    trial_options(parser, f"{TRIAL} samples, one seed and one epoch, published weights")
    given = parser.parse_args()
    if given.trial:
        given.seeds, given.epochs, given.dense_epochs = [0], 1, 0
    case = make(
        given.model,
        given.bert,
        epochs=given.dense_epochs,
        device=given.device,
        limit=TRIAL if given.trial else None,
    )
    assert case.task is not None
    label = given.model
    if given.dense_epochs not in (0, 1) and given.model != "bert6":
        label += f" of {given.dense_epochs:g} epochs"
    if given.weights != "int8":
        label += f", {given.weights}"
    records, work = records_of("quantization_qat", given), given.work / given.model
    files.make_folder(work)
    if f"{label} | float" not in records:
        labels = torch.cat([labels for _, labels in case.evaluation])
        found = predictions(deploy.load(case.model, runtime="pytorch"), case)
        top1 = float((found == labels).double().mean())
        records.add(f"{label} | float", {"top1": top1, "epochs": given.dense_epochs})
    calibrated = quantize.quantize(case.model, case.example, case.calibration(0), weights=given.weights)
    if f"{label} | ptq | " not in records:
        result = deployed(calibrated, case, work / "ptq.onnx")
        records.add(f"{label} | ptq | ", {**result, "seconds": calibrated.report["seconds"]})
    rate = f"rate {given.lr:g} | " if given.lr else ""
    for seed in given.seeds:
        for method in given.methods:
            key = f"{label} | {method} | {given.epochs:g} epochs | {rate}seed {seed}"
            if key in records:
                continue
            chosen = {**TRAINING.get(given.model, {}), **METHODS[method], "lr": given.lr}
            options = QAT(epochs=given.epochs, save_every=60, **chosen)
            folder = work / key.rpartition("|")[0].strip().replace(" ", "-").replace(",", "") / f"seed-{seed}"
            quantized, seconds = trained(
                calibrated, case.model, case.task, options, seed, folder, given.device
            )
            result = {**deployed(quantized, case, folder / "model.onnx"), "device": given.device}
            how = {"epochs": given.epochs, "rate": options.lr, "seed": seed, "seconds": round(seconds, 1)}
            records.add(key, {**result, **how})
            print(table(records, label, given.epochs), flush=True)
    print(table(records, label, given.epochs))
    print(verdict(records, label, given.epochs, case))


if __name__ == "__main__":
    main()
