"""The names and shapes in published files: torchvision's for the ImageNet models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from lianzhi import models

# a name and a shape from each part of torchvision's files, and how many entries its files have
TORCHVISION = {
    "alexnet": (
        16,
        {"features.10.bias": [256], "classifier.1.weight": [4096, 9216], "classifier.6.bias": [1000]},
    ),
    "vgg16_bn": (97, {"features.1.running_mean": [64], "features.40.weight": [512, 512, 3, 3]}),
    "resnet18": (122, {"layer2.0.downsample.0.weight": [128, 64, 1, 1], "fc.weight": [1000, 512]}),
    "resnet50": (320, {"layer1.0.downsample.1.bias": [256], "layer4.2.conv3.weight": [2048, 512, 1, 1]}),
    "resnext50_32x4d": (320, {"layer1.0.conv2.weight": [128, 4, 3, 3]}),
    "mobilenet_v2": (
        314,
        {
            "features.0.0.weight": [32, 3, 3, 3],
            "features.1.conv.1.weight": [16, 32, 1, 1],
            "features.2.conv.1.0.weight": [96, 1, 3, 3],
            "features.17.conv.3.running_var": [320],
            "features.18.1.bias": [1280],
            "classifier.1.weight": [1000, 1280],
        },
    ),
    "inception_v3": (
        580,
        {
            "Conv2d_1a_3x3.conv.weight": [32, 3, 3, 3],
            "AuxLogits.conv1.bn.bias": [768],
            "Mixed_6e.branch7x7dbl_5.conv.weight": [192, 192, 1, 7],
            "Mixed_7c.branch3x3dbl_3b.conv.weight": [384, 384, 3, 1],
            "fc.weight": [1000, 2048],
        },
    ),
}
LITE = {
    "_conv_stem.weight": [32, 3, 3, 3],
    "_bn0.running_var": [32],
    "_blocks.0._depthwise_conv.weight": [32, 1, 3, 3],
    "_blocks.3._depthwise_conv.weight": [144, 1, 5, 5],
    "_blocks.15._project_conv.weight": [320, 1152, 1, 1],
    "_blocks.15._bn2.bias": [320],
    "_conv_head.weight": [1280, 320, 1, 1],
    "_bn1.weight": [1280],
    "_fc.weight": [1000, 1280],
}
CIFAR = {
    "conv1.weight": [16, 3, 3, 3],
    "layer1.0.bn2.running_var": [16],
    "layer2.0.conv1.weight": [32, 16, 3, 3],
    "layer3.2.conv2.weight": [64, 64, 3, 3],
    "linear.weight": [10, 64],
}


def shapes(name: str, **config) -> dict[str, list[int]]:
    with torch.device("meta"):
        state = models.model(name, **config).state_dict()
    return {key: list(value.shape) for key, value in state.items()}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name):
    entries, known = TORCHVISION[name]
    found = shapes(name, **({"aux": True} if name == "inception_v3" else {}))
    assert {key: found.get(key) for key in known} == known
    assert len(found) == entries


def test_efficientnet_lite0():
    found = shapes("efficientnet_lite0")
    assert {key: found.get(key) for key in LITE} == LITE
    assert len(found) == 296
    assert not any("_blocks.0._expand" in key for key in found)


def test_cifar():
    found = shapes("resnet20")
    assert {key: found.get(key) for key in CIFAR} == CIFAR
    assert not any("shortcut" in key for key in found)


@pytest.mark.parametrize("page", ["docs/models.md", "docs/zh/models.md"])
def test_the_docs_name_every_model(page):
    text = (Path(__file__).resolve().parents[2] / page).read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == models.registry.names()
