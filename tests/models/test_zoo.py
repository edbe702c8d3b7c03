"""Every model of the zoo: known sizes, forward, backward, export with a free batch, a last layer for other classes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.export import Dim, export

from lianzhi import models
from lianzhi.models.cnn.efficientnet_lite import SameConv2d, same_padding
from lianzhi.models.options import ModelConfig
from lianzhi.pipeline.heads import with_new_head
from lianzhi.tasks import task

NAMES = [
    name for name in models.registry.names() if issubclass(models.registry.get(name).config, ModelConfig)
]
IMAGENET = {
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "mobilenet_v2",
    "efficientnet_lite0",
}
DEEP = {"resnet32", "resnet34", "resnet44", "resnet101", "resnet110", "resnet152"}

# torchvision's counts, those of the papers, and by hand for the rest
PARAMETERS = {
    "alexnet": 61_100_840,
    "alexnet_cifar": 23_272_266,
    "dnn_2": 784 * 128 + 128 + 128 * 10 + 10,
    "dnn_4": 784 * 512 + 512 + 512 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10,
    "efficientnet_lite0": 4_652_008,
    "fashion_resnet": 2_776_522,
    "inception_v3": 23_834_568,
    "lenet5": 431_080,
    "lenet5_classic": 61_706,
    "lenet_300_100": 266_610,
    "mobilenet_v2": 3_504_872,
    "resnet18": 11_689_512,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet34": 21_797_672,
    "resnet44": 658_586,
    "resnet50": 25_557_032,
    "resnet56": 853_018,
    "resnet101": 44_549_160,
    "resnet110": 1_727_962,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "vgg16_bn": 138_365_992,
    "vgg16_bn_cifar": 14_728_266,
}
SMALL = {
    "alexnet": {"image_size": 63, "hidden": (16, 16)},
    "alexnet_cifar": {"hidden": (16, 16)},
    "inception_v3": {"image_size": 75},
    "vgg16_bn": {"image_size": 32, "hidden": (16,)},
    **{name: {"image_size": 32} for name in NAMES if name in IMAGENET},
}


def names_with_slow_ones():
    return [pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name for name in NAMES]


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_as_published(name):
    with torch.device("meta"):
        assert count(models.model(name)) == PARAMETERS[name]


def test_inception_with_its_auxiliary_head():
    with torch.device("meta"):
        model = models.model("inception_v3", aux=True)
        assert count(model) == 27_161_264
        images = torch.zeros(2, 3, 299, 299)
        logits, auxiliary = model.train()(images)
        assert logits.shape == auxiliary.shape == (2, 1000)
        assert model.eval()(images).shape == (2, 1000)


def test_a_convolution_of_stride_2_pads_as_tensorflow_does():
    for size, window in ((8, 3), (9, 3), (8, 5), (11, 5)):
        layer, values = SameConv2d(1, 1, window, 2), torch.randn(1, 1, size, size)
        before, _ = same_padding(size, window, 2)
        big = torch.zeros(1, 1, size + 2 * window, size + 2 * window)
        big[:, :, before : before + size, before : before + size] = values
        count = -(-size // 2)
        expected = nn.functional.conv2d(big, layer.weight, stride=2)[:, :, :count, :count]
        torch.testing.assert_close(layer(values), expected)


@pytest.mark.parametrize("name", names_with_slow_ones())
def test_it_learns(name):
    model = models.model(name, num_classes=4, **SMALL.get(name, {})).train()
    images = torch.randn(2, *models.input_shape(model))
    logits = model(images)
    assert logits.shape == (2, 4)
    logits.square().sum().backward()
    missing = [key for key, value in model.named_parameters() if value.grad is None]
    assert missing == []
    assert all(value.grad.isfinite().all() for value in model.parameters())
    assert sum(value.grad.abs().sum() > 0 for value in model.parameters()) > 1


@pytest.mark.parametrize("name", names_with_slow_ones())
def test_its_last_layer_can_be_another(name):
    model = models.model(name, num_classes=4, **SMALL.get(name, {}))
    shape = models.input_shape(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with_new_head(model, task("synthetic", samples=8, classes=3, shape=shape), seed=0)
    assert model.eval()(torch.randn(2, *shape)).shape == (2, 3)
    changed = [key for key, value in model.state_dict().items() if not value.equal(before[key])]
    assert {key.rpartition(".")[2] for key in changed} == {"weight", "bias"}
    assert len(changed) == 2
    assert models.describe(model)["config"]["num_classes"] == 3


@pytest.mark.parametrize("name", names_with_slow_ones())
def test_it_exports_with_a_free_batch_at_full_size(name):
    with torch.device("meta"):
        model = models.model(name).eval()
        images = torch.zeros(2, *models.input_shape(model))
    exported = export(model, (images,), dynamic_shapes=({0: Dim("batch")},))
    output = next(node for node in exported.graph.nodes if node.op == "output").args[0][0].meta["val"]
    assert isinstance(output.shape[0], torch.SymInt)
    assert output.shape[1] == models.describe(model)["config"]["num_classes"]


@pytest.mark.parametrize("size", [64, 96, 224])
@pytest.mark.parametrize("name", ["alexnet", "vgg16_bn", "alexnet_cifar", "vgg16_bn_cifar", "lenet5"])
def test_the_classifier_fits_the_image(name, size):
    with torch.device("meta"):
        model = models.model(name, image_size=size, in_channels=1)
        assert model(torch.zeros(2, 1, size, size)).shape[0] == 2


@pytest.mark.parametrize("size", [28, 33, 40])
@pytest.mark.parametrize("name", ["alexnet_cifar", "lenet5", "lenet5_classic", "resnet20", "fashion_resnet"])
def test_odd_sizes(name, size):
    model = models.model(name, image_size=size, in_channels=1).eval()
    assert model(torch.zeros(1, 1, size, size)).shape == (1, 10)
