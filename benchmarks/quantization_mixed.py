"""ResNet-20 on CIFAR-10: mixed precision for several file sizes, and accuracy control of 4-bit weights.

    python benchmarks/quantization_qat.py --seeds         # fine-tunes the float model, kept in out/
    python benchmarks/quantization_mixed.py

256 calibration images make the table of sensitivities. Accuracy control validates on the part that is cut off the training
data and may lose one point of it. Top-1 is of the test split, by the module with quantizers; bytes are those of the ONNX
file. What is on record in ``results/quantization_mixed.json`` is not computed again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from quantization_cases import DATA, fine_tuned
from records import records_of, trial_options

import lianzhi as lz
from lianzhi import measure, quantize

BUDGETS = (0.14, 0.18)
MAX_DROP = 0.01
TRIAL = 256


def evaluated(quantized: quantize.QuantizedModel, task: lz.Task) -> dict[str, Any]:
    """Top-1, the bytes of the file, and how many layers have which weights."""
    with tempfile.TemporaryDirectory() as folder:
        size = measure.size(quantized.export(Path(folder) / "model.onnx"))
    return {"top1": measure.evaluate(quantized.model, task, progress=False).value, "bytes": size}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    trial_options(parser, f"{TRIAL} images, published weights")
    given = parser.parse_args()
    task = lz.task("cifar10", data=DATA / "cifar10", limit=TRIAL if given.trial else None)
    records = records_of("quantization_mixed", given)
    model = fine_tuned("resnet20", task, 0 if given.trial else 1, "cpu")
    batches = [batch.inputs for batch in task.batches("calibration", 64)][:4]

    def validate(module: torch.nn.Module) -> float:
        return measure.evaluate(module, task, split="validation", progress=False).value

    def made(**options: Any) -> quantize.QuantizedModel:
        return quantize.quantize(model, task.example_inputs, batches, **options)

    if "float" not in records:
        records.add("float", {"top1": measure.evaluate(model, task, progress=False).value})
    for name in ("int8", "int4"):
        if name not in records:
            records.add(name, evaluated(made(weights=name), task))
    table = None
    for budget in BUDGETS:
        key = f"mixed, {budget:g} of the float bytes"
        if key not in records:
            table = table or quantize.sensitivity(model, task.example_inputs, batches)
            layers = quantize.allocate(table, budget)
            records.add(
                key, {**evaluated(made(layers=layers), task), "layers": dict(Counter(layers.values()))}
            )
    key = f"int4, at most {MAX_DROP:g} lost"
    if key not in records:
        controlled = made(weights="int4", max_drop=MAX_DROP, evaluate=validate)
        control = controlled.report["control"]
        record = {"returned": len(control["returned"]), "steps": len(control["steps"]), "met": control["met"]}
        records.add(
            key, {**evaluated(controlled, task), **record, "validation": controlled.report["accuracy"]}
        )
    for name, row in records.items():
        print(f"{name:<32} {row['top1']:.2%} {row.get('bytes', ''):>9} {row.get('layers', '')}")


if __name__ == "__main__":
    main()
