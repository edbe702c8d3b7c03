"""Convolutional networks (and the perceptrons beside them), one file a family."""

import importlib

FAMILIES = (
    "mlp",
    "lenet",
    "alexnet",
    "vgg",
    "cifar_resnet",
    "fashion_resnet",
    "resnet",
    "mobilenet_v2",
    "efficientnet_lite",
    "inception_v3",
)


def load() -> None:
    """Import every family, which puts its models into the registry."""
    for family in FAMILIES:
        importlib.import_module(f"{__name__}.{family}")
