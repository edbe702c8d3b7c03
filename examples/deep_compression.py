"""Deep Compression's file: 90 % of the weights removed, the rest shared between 16 values, both Huffman-coded.

python examples/deep_compression.py [FOLDER]
"""

import sys
from pathlib import Path

import torch

import lianzhi as lz

output = Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples/packed")
output.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
model = lz.model("lenet5").eval()
images = torch.randn(1, 1, 28, 28)

# to keep the accuracy as well, put the steps Prune(granularity="weight"), ShareWeights and Pack into lz.compress
report = lz.codebook.pack(model, output / "lenet5.lzc", bits=4, sparsity=0.9, example_inputs=images)
print(report)
print(f"{report.bytes:,} bytes, {report.ratio:.0f} times smaller")

tensors = lz.codebook.unpack(output / "lenet5.lzc")
weight = tensors["fc1.weight"]
print(
    f"fc1.weight: {weight.count_nonzero():,} of {weight.numel():,} left, with {weight.unique().numel()} values"
)

again = lz.load(output / "lenet5.lzc")
print("the file is a model:", tuple(again(images).shape))
