"""ResNet-20 on CIFAR-10: int8 by calibration alone, and by quantization-aware training, against the float model.

    python benchmarks/quantization_qat.py                 # three seeds; what is on record is not done again
    python benchmarks/quantization_qat.py --model resnet56 --seeds 0
    python benchmarks/quantization_qat.py --weights int4 --seeds 0

The published weights are fine-tuned first (`--dense-epochs`), since this copy of the images went through JPEG. Then
for each seed the calibrated model is trained: the recipe's `quantize: {method: qat}`, with step sizes learned and the
float model as the teacher, and once more with a tenth of each layer's channels. The epoch that is kept is chosen by the
part that is cut off the training data. Top-1 is of the test split, by the deployed file in ONNX Runtime; `agreement` is
that of the file with the module that was trained. A run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

import torch
from records import Records
from torch import nn

import lianzhi as lz
from lianzhi import deploy, distill, files, quantize, train
from lianzhi.recipe.qat import QAT

BAR = 0.001  # of top-1
METHODS: dict[str, dict[str, Any]] = {"qat": {}, "qat, a tenth of the channels": {"channels": 0.1}}


def fine_tuned(name: str, task: lz.Task, data: Path, epochs: float, work: Path) -> nn.Module:
    """The float model on this copy of the data, trained once and kept in the work folder."""
    model = lz.model(name, weights=data / "cifar10" / f"{name}.safetensors")
    file = work / f"dense-{epochs:g}.safetensors"
    if file.is_file():
        model.load_state_dict(files.read_tensors(file))
        return model.eval()
    options = train.TrainOptions(
        epochs=epochs, lr=0.02, weight_decay=1e-4, precision="auto", keep="last", save_every=60
    )
    train.fit(model, task, options, directory=work / f"dense-{epochs:g}", resume=True, title="float")
    files.make_folder(work)
    files.write_tensors(file, model.state_dict())
    return model.eval()


def predictions(predict: Any, task: lz.Task) -> torch.Tensor:
    """The class of every test image, in order."""
    with torch.no_grad():
        return torch.cat([predict(batch.inputs).argmax(1) for batch in task.batches("test", 500)])


def deployed(quantized: quantize.QuantizedModel, task: lz.Task, file: Path) -> dict[str, Any]:
    """Top-1 of the file, and how often it agrees with the module."""
    quantized.export(file)
    labels = torch.cat([batch.labels for batch in task.batches("test", 500)])
    found = predictions(deploy.load(file, runtime="onnxruntime"), task)
    module = predictions(quantized.model, task)
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
    title: str,
) -> tuple[quantize.QuantizedModel, float]:
    """Quantization-aware training with the recipe's options; the model and its seconds."""
    module = quantize.make_trainable(calibrated, lsq=options.lsq, channels=options.channels)
    step = distill.methods.registry.get("kd").build(
        dense, temperature=options.temperature, alpha=options.alpha, loss=task.loss
    )
    history = train.fit(
        module, task, options, step=step, seed=seed, directory=folder, resume=True, title=title
    )
    return quantize.trained(calibrated, module), history.seconds


def table(records: Records, name: str, epochs: float) -> str:
    """Means over the seeds on record."""
    dense = records[f"{name} | float"]["top1"]
    lines = ["| model | method | top-1 | lost | seeds | seconds |", "|---|---|---|---|---|---|"]
    lines.append(f"| {name} | float | {dense:.2%} | | | |")
    for method in ("ptq", *METHODS):
        start = f"{name} | {method} | "
        runs = [
            row
            for key, row in records.items()
            if key.startswith(start) and row.get("epochs") in (None, epochs)
        ]
        if runs:
            top = statistics.mean(row["top1"] for row in runs)
            seconds = statistics.mean(row["seconds"] for row in runs)
            lost = f"{100 * (dense - top):.2f} points"
            lines.append(f"| {name} | {method} | {top:.2%} | {lost} | {len(runs)} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet20", choices=("resnet20", "resnet56"))
    parser.add_argument("--weights", default="int8", choices=("int8", "int4"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--dense-epochs", type=float, default=1)
    parser.add_argument("--work", type=Path, default=Path("out/quantization_qat"))
    given = parser.parse_args()
    data = Path(os.environ.get("LIANZHI_DATA", Path(__file__).parents[2] / "shared" / "data"))
    task = lz.task("cifar10", data=data / "cifar10")
    name, work, records = given.model, given.work / given.model, Records("quantization_qat")
    dense = fine_tuned(name, task, data, given.dense_epochs, work)
    if given.weights != "int8":
        name = f"{name}, {given.weights}"
    if f"{name} | float" not in records:
        top1 = lz.measure.evaluate(dense, task).value
        records.add(f"{name} | float", {"top1": top1, "epochs": given.dense_epochs})
    batches = [batch.inputs for batch in task.batches("calibration", 64)][:8]
    calibrated = quantize.quantize(dense, task.example_inputs, batches, weights=given.weights)
    if f"{name} | ptq | " not in records:
        result = deployed(calibrated, task, work / "ptq.onnx")
        records.add(f"{name} | ptq | ", {**result, "seconds": calibrated.report["seconds"]})
    for seed in given.seeds:
        for method in given.methods:
            key = f"{name} | {method} | {given.epochs:g} epochs | seed {seed}"
            if key in records:
                continue
            options = QAT(epochs=given.epochs, save_every=60, **METHODS[method])
            folder = work / key.rpartition("|")[0].strip().replace(" ", "-").replace(",", "") / f"seed-{seed}"
            quantized, seconds = trained(calibrated, dense, task, options, seed, folder, key)
            result = deployed(quantized, task, folder / "model.onnx")
            records.add(key, {**result, "epochs": given.epochs, "seed": seed, "seconds": round(seconds, 1)})
            print(table(records, name, given.epochs), flush=True)
    print(table(records, name, given.epochs))
    if not given.seeds or given.weights != "int8":
        return
    lost = records[f"{name} | float"]["top1"] - statistics.mean(
        row["top1"]
        for key, row in records.items()
        if key.startswith(f"{name} | qat | {given.epochs:g} epochs")
    )
    print(
        f"QAT loses {100 * lost:.2f} points; the bar is {100 * BAR:.1f}: {'met' if lost <= BAR else 'MISSED'}"
    )


if __name__ == "__main__":
    main()
