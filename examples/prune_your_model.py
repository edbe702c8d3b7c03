"""A module of your own, pruned to half of its multiply-accumulates, and the proof that nothing else changed.

python examples/prune_your_model.py [FOLDER]
"""

import sys
from pathlib import Path

import torch
from torch import nn

import lianzhi as lz


class Net(nn.Module):
    """Two branches that meet again: their channels have to go together."""

    def __init__(self, width=32, num_classes=5):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.left = nn.Conv2d(width, width, 3, padding=1)
        self.right = nn.Conv2d(width, width, 1)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images):
        x = self.stem(images)
        x = torch.relu(self.left(x) + self.right(x))
        return self.head(x.mean((2, 3)))


output = Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples/pruned")
torch.manual_seed(0)
model = Net().eval()
images = torch.randn(1, 3, 32, 32)

plan = lz.prune.plan(model, images, macs=0.5, criterion="l1")
print(plan.table())
for name, reason in plan.unprunable:
    print(f"not prunable: {name} ({reason})")

small = plan.apply()
print(f"multiply-accumulates: {lz.measure.macs(model, images):,} -> {lz.measure.macs(small, images):,}")
print(f"parameters: {lz.measure.parameters(model):,} -> {lz.measure.parameters(small):,}")
print(f"largest difference from the original with those channels at zero: {plan.verify():.1e}")

lz.save(small, output, example_inputs=images)
again = lz.load(output)  # the class Net is not needed for it
print("loaded again, the same outputs:", torch.equal(again(images), small(images)))
