"""Run by OneFlow's Python: LeNet-5 or ResNet-20, written in OneFlow, trained for a few updates on FOLDER/data.npz.

Leaves FOLDER/checkpoint by `oneflow.save`, the logits of FOLDER/inputs.npz in FOLDER/outputs.npz, and prints the losses.
"""

import sys
from pathlib import Path

import numpy as np
import oneflow as flow
from oneflow import nn
from oneflow.nn import functional as F
from outputs import write_outputs


class LeNet5(nn.Module):
    """Caffe's: 20 and 50 filters, 500 hidden units."""

    def __init__(self, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(800, 500)
        self.fc2 = nn.Linear(500, classes)

    def forward(self, x):
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class Block(nn.Module):
    """Two convolutions and a shortcut without parameters: every other pixel, and channels of zeros."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.more = (after - before) // 2

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.more:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more, self.more))
        return F.relu(out + x)


class ResNet20(nn.Module):
    """Three stages of three blocks, 16, 32 and 64 wide."""

    def __init__(self, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*[Block(16, 16, 1) for _ in range(3)])
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


if __name__ == "__main__":
    folder, updates = Path(sys.argv[2]), int(sys.argv[3])
    flow.manual_seed(0)
    with np.load(folder / "data.npz") as data:
        images, labels = data["images"], data["labels"]
    model = {"lenet5": LeNet5, "resnet20": ResNet20}[sys.argv[1]](int(labels.max()) + 1)
    optimizer = flow.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    order, losses = np.random.default_rng(0), []
    for _ in range(updates):
        chosen = order.choice(len(images), 32, replace=False)
        loss = criterion(model(flow.tensor(images[chosen])), flow.tensor(labels[chosen]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.numpy()))
    flow.save(model.state_dict(), str(folder / "checkpoint"))
    write_outputs(model, folder / "inputs.npz", folder / "outputs.npz")
    sys.stdout.write(f"{losses[0]} {np.mean(losses[-5:])}\n")
