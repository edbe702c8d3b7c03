"""Torchvision models for the coverage benchmark, with random weights: the list that Torch-Pruning's own benchmark names.

Sizes of the images are reduced where the model allows it, so that the list runs on two cores. Of a detector the
backbone with its feature pyramid is pruned: what follows picks boxes by their values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_CLASSIFIERS = """alexnet vit_b_16 vit_b_32 vit_l_16 vit_l_32 vit_h_14 convnext_tiny convnext_small convnext_base convnext_large
densenet121 densenet169 densenet201 densenet161 efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3
efficientnet_b4 efficientnet_b5 efficientnet_b6 efficientnet_b7 efficientnet_v2_s efficientnet_v2_m efficientnet_v2_l
googlenet inception_v3 mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small
regnet_y_400mf regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf regnet_y_8gf regnet_y_16gf regnet_y_32gf regnet_y_128gf
resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x8d wide_resnet50_2 wide_resnet101_2
squeezenet1_0 squeezenet1_1 vgg11 vgg13 vgg16 vgg19 vgg11_bn vgg13_bn vgg16_bn vgg19_bn
shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0 swin_t swin_s swin_b"""
_SEGMENTERS = """fcn_resnet50 fcn_resnet101 deeplabv3_resnet50 deeplabv3_resnet101 deeplabv3_mobilenet_v3_large
lraspp_mobilenet_v3_large"""
_DETECTORS = """ssdlite320_mobilenet_v3_large ssd300_vgg16 fasterrcnn_resnet50_fpn fasterrcnn_resnet50_fpn_v2
fasterrcnn_mobilenet_v3_large_320_fpn fasterrcnn_mobilenet_v3_large_fpn fcos_resnet50_fpn keypointrcnn_resnet50_fpn
maskrcnn_resnet50_fpn_v2 retinanet_resnet50_fpn_v2"""
NAMES = [*_CLASSIFIERS.split(), *_SEGMENTERS.split(), *_DETECTORS.split(), "raft_large"]
FULL_SIZE = ("vit_", "alexnet", "squeezenet", "vgg")  # the size of the image is part of these models


class Pair(nn.Module):
    """A model of two images, of which only the last prediction is taken."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return self.model(first, second, num_flow_updates=2)[-1]


def make(name: str) -> tuple[nn.Module, Any]:
    """The model and its example inputs."""
    import torchvision

    options: dict[str, Any] = {"weights": None}
    if name in _SEGMENTERS.split() or name in _DETECTORS.split():
        options["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = True
        options["aux_logits"] = False
    model = torchvision.models.get_model(name, **options)
    if name in _DETECTORS.split():
        model = model.backbone
    if name == "raft_large":
        return Pair(model), (torch.randn(1, 3, 128, 128), torch.randn(1, 3, 128, 128))
    size = 224 if name.startswith(FULL_SIZE) else 128
    if name == "inception_v3" or name.startswith("ssd"):
        size = 160 if name.startswith("inception") else 300
    return model, torch.randn(1, 3, size, size)
