"""Where quantizers go, by target."""

import copy

import pytest
import torch
from nets import Feed, Inverted, Projection, Residual, made

from lianzhi.graph import capture
from lianzhi.quantize.fold import fold_batch_norm
from lianzhi.quantize.placement import RULES, layer_name, place
from lianzhi.quantize.prepare import prepare

aten = torch.ops.aten


def placed(net, target, ignored=lambda name: False):
    model, inputs = made(net)
    module = copy.deepcopy(capture(model, inputs).module)
    prepare(module)
    fold_batch_norm(module)
    return module, place(module, RULES[target], ignored)


def names(placement):
    return [node.name for node in placement.values]


def test_onnxruntime_has_quantizers_on_both_sides_of_every_kernel():
    _, placement = placed(Residual, "onnxruntime")
    assert names(placement) == [
        "x",
        "relu",
        "slice_2",
        "slice_3",
        "pad",
        "conv2d_1",
        "relu_1",
        "adaptive_avg_pool2d",
        "flatten",
    ]
    assert [layer_name(node) for node in placement.weights] == ["conv1", "conv2", "linear"]
    shares = {node.name: source.name for node, source in placement.shares.items()}
    assert shares == {"slice_2": "relu", "slice_3": "relu", "pad": "relu", "flatten": "adaptive_avg_pool2d"}


def test_openvino_adds_a_residual_inside_the_convolution():
    _, placement = placed(Residual, "openvino")
    assert "conv2d_1" not in names(placement)
    assert "pad" in names(placement)
    _, placement = placed(Projection, "openvino")
    convolutions = [node for node in placement.values if node.target is aten.conv2d.default]
    assert [node.name for node in convolutions] == ["conv2d_1"]  # of two, the one that runs first is rounded


@pytest.mark.parametrize("target", RULES)
def test_nothing_stands_between_a_convolution_and_its_activation(target):
    _, placement = placed(Inverted, target)
    for node in placement.values:
        if node.target is aten.conv2d.default:
            assert all(user.target not in (aten.relu.default, aten.hardtanh.default) for user in node.users)


@pytest.mark.parametrize("target", RULES)
def test_a_sum_before_a_layer_norm_stays_float(target):
    _, placement = placed(Feed, target)
    last = [] if target == "tensorrt" else ["out"]  # 32 to 4: too narrow
    assert [layer_name(node) for node in placement.weights] == ["up", "down", *last]
    assert names(placement) == ["x", "gelu", *(["layer_norm"] if last else [])]


def test_logits_stay_float_and_ignored_layers_too():
    _, placement = placed(Residual, "onnxruntime", lambda name: name == "conv2")
    assert "linear" not in names(placement)
    assert [layer_name(node) for node in placement.weights] == ["conv1", "linear"]
    assert placement.left == [("conv2", "ignored, as asked")]


def test_what_has_no_kernel_is_named():
    class Decoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.up = torch.nn.Conv2d(3, 4, 3), torch.nn.ConvTranspose2d(4, 3, 3)

        def forward(self, x):
            return self.up(torch.relu(self.conv(x)))

    graph = capture(Decoder(), torch.randn(2, 3, 8, 8))
    placement = place(graph.module, RULES["onnxruntime"], lambda name: False)
    assert placement.left == [("up", "the target has no integer kernel for transposed convolutions")]
