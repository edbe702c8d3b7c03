"""Int8 for one runtime, as plain functions: calibrate, export, check the file, run it, time it.

python examples/quantize_for_a_runtime.py [FOLDER]
"""

import sys
from pathlib import Path

import torch

import lianzhi as lz

output = Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples/quantized")
output.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
model = lz.model("resnet20", num_classes=10).eval()
images = torch.randn(1, 3, 32, 32)
calibration = [
    torch.randn(16, 3, 32, 32) for _ in range(4)
]  # in earnest: some hundred samples of your training data

quantized = lz.quantize.quantize(model, images, calibration, target="onnxruntime")
print(quantized)  # per layer: how much noise int8 adds

file = quantized.export(output / "resnet20-int8.onnx")
findings = lz.quantize.lint(file, "onnxruntime")
print(findings or "nothing keeps ONNX Runtime from running it fast")

run = lz.deploy.load(file, runtime="onnxruntime")
answers, whole = torch.as_tensor(run(images)), model(images)
print(f"largest difference from float: {(answers - whole).abs().max():.3f} of {whole.abs().max():.3f}")

for name, what, runtime in (
    ("float, PyTorch", model, "pytorch"),
    ("int8, ONNX Runtime", file, "onnxruntime"),
):
    time = lz.measure.latency(what, images, runtime=runtime, threads=1, repeats=20)
    print(f"{name}: {time.median_ms:.2f} ms, p90 {time.p90_ms:.2f} ms")
