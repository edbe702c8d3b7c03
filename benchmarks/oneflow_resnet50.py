"""A OneFlow ResNet-50 to int8 for TensorRT, by one command with data and by one with the cache that it left.

    python benchmarks/oneflow_resnet50.py resnet50_oneflow

`resnet50_oneflow` is what ``oneflow.save(flowvision.models.resnet50().state_dict(), "resnet50_oneflow")`` wrote; weights may be
random: what is built does not depend on them. Beside it may lie `resnet50_oneflow.npz` with `x` and OneFlow's own outputs `y`,
which are compared with those of the model here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from records import Records

import lianzhi as lz
from lianzhi import quantize
from lianzhi.deploy import tensorrt

RECIPES = Path(__file__).parents[1] / "recipes"


def compress(name: str, output: Path, *changes: str) -> dict[str, Any]:
    """Run one command, and say what its file is."""
    sets = [part for change in changes for part in ("--set", change)]
    command = [
        "-m",
        "lianzhi",
        "compress",
        str(RECIPES / f"{name}.yaml"),
        "-o",
        str(output),
        "--quiet",
        *sets,
    ]
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    report = json.loads((output / "report.json").read_text())
    found = report["rows"][-1]["details"]["quantization"]["tensorrt"]
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "calibration_samples": found["calibration"]["samples"],
        "layers_int8": len(found["layers"]),
        "layers_float": len(found["left_float"]),
        "onnx_bytes": (output / "model.onnx").stat().st_size,
        "engine_bytes": (output / "model.rtx.engine").stat().st_size,
        "parser_refuses": tensorrt.check(output / "model.onnx"),
        "lint": [str(item) for item in quantize.lint(output / "model.onnx", "tensorrt")],
        "notes": [note for note in report["notes"] if "NVIDIA" in note],
    }


def agreement(checkpoint: Path) -> dict[str, float] | None:
    """How far the outputs here are from OneFlow's own; None where those are not on record."""
    file = checkpoint.with_name(f"{checkpoint.name}.npz")
    if not file.is_file():
        return None
    known = np.load(file)
    model = lz.model("resnet50", num_classes=1000, weights=checkpoint).eval()
    with torch.no_grad():
        found = model(torch.from_numpy(known["x"])).numpy()
    return {
        "largest_difference": float(np.abs(found - known["y"]).max()),
        "largest": float(np.abs(known["y"]).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    given = parser.parse_args()
    records = Records("oneflow_resnet50")
    weights = f"model.weights={given.checkpoint.resolve()}"
    with tempfile.TemporaryDirectory() as place:
        online, offline = Path(place, "online"), Path(place, "offline")
        record = {
            "outputs": agreement(given.checkpoint),
            "online": compress("oneflow-resnet50-int8", online, weights),
        }
        table = f"steps.0.calibration_table={online / 'calibration.cache'}"
        record["offline"] = compress("oneflow-resnet50-int8-offline", offline, weights, table)
        same = (online / "model.onnx").read_bytes() == (offline / "model.onnx").read_bytes()
        record["same_file"] = same
    records.add("resnet50", record)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
