"""A small CNN that learns from a larger one: train the teacher, distil, quantize, in one chain that is measured after each step.

python examples/distill_vision.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np

import lianzhi as lz

CLASSES, SIDE, SAMPLES = 4, 16, 800


def stripes(count, seed=0):
    """Grey images of stripes in one of four directions, under noise."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    angles = labels * np.pi / CLASSES + draw.normal(0, 0.1, count)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    waves = np.cos(angles)[:, None, None] * columns + np.sin(angles)[:, None, None] * rows
    images = (
        128 + 70 * np.sin(waves + draw.uniform(0, 6, (count, 1, 1))) + draw.normal(0, 25, (count, SIDE, SIDE))
    )
    return images.clip(0, 255).astype(np.uint8), labels


output = Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples/distilled")
output.mkdir(parents=True, exist_ok=True)
images, labels = stripes(SAMPLES)
np.savez(output / "stripes.npz", x=images, y=labels)

task = lz.task("npz", data=output / "stripes.npz")
teacher = lz.model("resnet20", in_channels=1, num_classes=CLASSES, widths=[8, 16, 32])
student = {"name": "resnet20", "in_channels": 1, "num_classes": CLASSES, "widths": [4, 8, 16]}
result = lz.compress(
    teacher,
    task,
    steps=[
        lz.Train(epochs=5, batch_size=32, lr=0.05),
        lz.Distill(method="kd", student=student, epochs=5, batch_size=32, lr=0.05),
        lz.Quantize(calibration=32),
    ],
    target="onnxruntime",
    output=output / "result",
    measure=lz.Measure(batches=(1,), repeats=10, threads=1),
    force=True,
    progress=False,
)
print(result.table())
