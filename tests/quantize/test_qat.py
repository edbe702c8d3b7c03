"""Quantization-aware training: gradients in closed form, what trains, and the way back to a file."""

import copy
import math

import pytest
import torch
from nets import Feed, Inception, Perceptron, Residual, made
from torch import nn
from torch.nn import functional as F

from lianzhi import deploy, quantize, train
from lianzhi.errors import GraphError, RecipeError
from lianzhi.quantize.affine import FAKE_CHANNEL, FAKE_TENSOR
from lianzhi.quantize.qat.lsq import lsq, relative
from lianzhi.quantize.qat.norms import freeze_norms_, unfolded_norms
from lianzhi.quantize.qat.partial import important_channels, partial_convolution, partial_linear
from lianzhi.tasks import Task

aten = torch.ops.aten


def done(net, target="onnxruntime", **options):
    model, inputs = made(net)
    return inputs, quantize.quantize(model, inputs[:1], list(inputs.split(16)), target=target, **options)


@pytest.mark.parametrize(("qmin", "qmax", "zero"), [(0, 255, 100), (-127, 127, 0), (-64, 64, 0), (0, 255, 0)])
def test_the_gradient_of_a_scale_in_closed_form(qmin, qmax, zero):
    scale, zero_point = torch.tensor(0.02, requires_grad=True), torch.tensor(zero, dtype=torch.int32)
    values = torch.tensor([[0.013, -9.0, 0.5], [7.0, 0.0, -0.031]], requires_grad=True)
    upstream = torch.tensor([[1.0, 2.0, -1.0], [0.5, 3.0, -2.0]])
    (lsq(values, scale, zero_point, qmin, qmax) * upstream).sum().backward()
    total, of_values = 0.0, []
    for value, gradient in zip(values.flatten().tolist(), upstream.flatten().tolist(), strict=True):
        integer = round(value / 0.02) + zero
        inside = qmin <= integer <= qmax
        of_values.append(gradient * inside)
        border = (qmin if integer < qmin else qmax) - zero
        total += gradient * ((integer - zero) - value / 0.02 if inside else border)
    assert values.grad.flatten().tolist() == of_values
    assert float(scale.grad) == pytest.approx(total / math.sqrt(3 * qmax), rel=1e-4)


def test_lsq_is_pytorchs_fake_quantization_and_has_the_gradients_of_its_learnable_one():
    torch.manual_seed(0)
    values, gradient = torch.randn(4, 7, 9), torch.randn(4, 7, 9)
    for axis, scale, zero, learnable in (
        (0, torch.tensor(0.011), torch.tensor(17, dtype=torch.int32), None),
        (1, torch.rand(7) * 0.02 + 0.001, torch.zeros(7, dtype=torch.int32), 1),
    ):
        given, step = values.clone().requires_grad_(), scale.clone().requires_grad_()
        found = lsq(given, step, zero, -127, 127, axis)
        found.backward(gradient)
        if learnable is None:
            expected = FAKE_TENSOR(values, scale, zero, -127, 127)
            wanted = aten._fake_quantize_learnable_per_tensor_affine_backward(
                gradient, values, scale[None], zero[None].float(), -127, 127, 1 / math.sqrt(63 * 127)
            )
        else:
            expected = FAKE_CHANNEL(values, scale, zero, axis, -127, 127)
            wanted = aten._fake_quantize_learnable_per_channel_affine_backward(
                gradient, values, scale, zero.float(), axis, -127, 127, 1 / math.sqrt(36 * 127)
            )
        torch.testing.assert_close(found.detach(), expected, rtol=0, atol=0)
        torch.testing.assert_close(given.grad, wanted[0], rtol=0, atol=0)
        torch.testing.assert_close(step.grad.reshape(-1), wanted[1].reshape(-1), rtol=1e-4, atol=1e-5)


def test_a_step_of_gradient_descent_moves_the_scale_as_lsq_does():
    values, start = torch.randn(5, 6) * 3, torch.tensor(0.1)
    scale, factor = start.clone().requires_grad_(), torch.ones((), requires_grad=True)
    zero = torch.tensor(0, dtype=torch.int32)
    for step in (scale, relative(start, factor)):
        (lsq(values, step, zero, -7, 7) ** 2).sum().backward()
    with torch.no_grad():
        plain = scale - 0.01 * scale.grad
        torch.testing.assert_close(start * (factor - 0.01 * factor.grad), plain)
        assert relative(start, torch.tensor(-3.0)) > 0


def test_a_scale_learns_what_fits():
    """From a scale four times too large, gradient descent on the rounding error finds a better one."""
    torch.manual_seed(0)
    values, zero = torch.randn(1, 4000), torch.tensor(0, dtype=torch.int32)
    start, factor = values.abs().max() / 7 * 4, torch.ones((), requires_grad=True)
    optimizer = torch.optim.Adam([factor], lr=0.02)
    errors = []
    for _ in range(200):
        loss = (lsq(values, relative(start, factor), zero, -7, 7) - values).square().mean()
        errors.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert errors[-1] < 0.1 * errors[0]


@pytest.mark.parametrize(
    ("net", "target"),
    [(Residual, "onnxruntime"), (Feed, "onnxruntime"), (Residual, "openvino"), (Inception, "tensorrt")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_it_computes_the_same_and_everything_learns(net, target):
    inputs, quantized = done(net, target)
    module = quantize.make_trainable(quantized)
    with torch.no_grad():
        torch.testing.assert_close(module(inputs), quantized.model(inputs), rtol=0, atol=0)
    module.train()
    module(inputs).square().mean().backward()
    assert all(value.grad is not None for value in module.parameters())
    factors = [value for name, value in module.named_parameters() if name.endswith(".factor")]
    holders = {
        name.rpartition(".")[0] for name, _ in quantized.model.named_buffers() if name.endswith(".scale")
    }
    assert len(factors) == len(holders)
    again = quantize.trained(quantized, copy.deepcopy(module))
    for name, tensor in again.model.state_dict().items():
        torch.testing.assert_close(tensor, quantized.model.state_dict()[name], rtol=0, atol=0)


def moved(module, inputs, steps=3, lr=1e-2):
    optimizer = torch.optim.SGD(module.parameters(), lr=lr, weight_decay=0.1, momentum=0.9)
    module.train()
    torch.manual_seed(1)
    wanted = torch.randn_like(module(inputs))
    for _ in range(steps):
        optimizer.zero_grad()
        F.mse_loss(module(inputs), wanted).backward()
        optimizer.step()
    return module.eval()


@pytest.mark.parametrize(
    ("net", "channels"),
    [(Residual, 1.0), (Inception, 0.25), (Feed, 0.25)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_file_computes_what_was_trained(net, channels, tmp_path):
    inputs, quantized = done(net)
    module = moved(quantize.make_trainable(quantized, channels=channels), inputs)
    after = quantize.trained(quantized, module)
    with torch.no_grad():
        expected = module(inputs)
        assert (expected - quantized.model(inputs)).abs().max() > 1e-3  # it did learn
        torch.testing.assert_close(after.model(inputs), expected, rtol=1e-5, atol=1e-5)
    assert quantize.lint(after.export(tmp_path / "model.onnx"), "onnxruntime") == []
    found = deploy.load(tmp_path / "model.onnx", runtime="onnxruntime", threads=1)(inputs)
    agree = (found.argmax(-1) == expected.argmax(-1)).float().mean()
    assert agree >= 0.99
    assert (found - expected).square().mean() < 1e-3 * expected.square().mean()
    assert any("trained after calibration" in note for note in after.report["notes"])


def test_fixed_scales():
    inputs, quantized = done(Residual)
    module = quantize.make_trainable(quantized, lsq=False)
    assert not [name for name, _ in module.named_parameters() if "factor" in name]
    after = quantize.trained(quantized, moved(module, inputs)).model.state_dict()
    for name, tensor in quantized.model.state_dict().items():
        same = torch.equal(tensor, after[name])
        assert same if "quantizers" in name else not same


@pytest.mark.parametrize("net", [Residual, Feed], ids=lambda net: net.__name__)
def test_only_the_important_channels_train(net):
    inputs, quantized = done(net)
    module = moved(quantize.make_trainable(quantized, channels=0.25), inputs)
    after = quantize.trained(quantized, module).model.state_dict()
    for name, weight in quantized.model.named_parameters():
        if weight.dim() < 2:
            continue
        rows = important_channels(weight, 0.25)
        changed = (after[name] != weight).flatten(1).any(1)
        assert changed.nonzero().flatten().tolist() == rows.tolist()


def test_gradients_of_some_rows_are_those_of_autograd():
    torch.manual_seed(0)
    rows = torch.tensor([1, 4])
    for values, weight, options in (
        (torch.randn(3, 5, 4), torch.randn(6, 4), None),
        (torch.randn(2, 3, 9, 8), torch.randn(6, 3, 3, 2), ([2, 1], [1, 0], [1, 2])),
        (torch.randn(2, 3, 11), torch.randn(6, 3, 3), ([2], [1], [1])),
    ):
        tensors = [item.requires_grad_() for item in (values, weight, torch.randn(6))]
        if options is None:
            found, expected = partial_linear(*tensors, rows), F.linear(*tensors)
        else:
            found = partial_convolution(*tensors, rows, *options)
            expected = getattr(F, f"conv{weight.dim() - 2}d")(*tensors, *options)
        upstream = torch.randn_like(expected)
        ours, theirs = (torch.autograd.grad(item, tensors, upstream) for item in (found, expected))
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(ours[0], theirs[0])
        torch.testing.assert_close(ours[2], theirs[2], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours[1][rows], theirs[1][rows], rtol=1e-4, atol=1e-4)
        assert ours[1].abs().flatten(1).sum(1).count_nonzero() == 2


class Before(nn.Module):
    """A BatchNorm that stands before its convolution, so that it cannot be folded."""

    def __init__(self):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(torch.relu(self.norm(x))).mean([2, 3])


def test_norms_that_are_left_can_be_frozen():
    assert unfolded_norms(quantize.make_trainable(done(Residual)[1])) == []
    torch.manual_seed(0)
    model, inputs = Before().eval(), torch.randn(16, 3, 8, 8) * 2 + 1
    quantized = quantize.quantize(model, inputs[:1], [inputs])
    module = quantize.make_trainable(quantized)
    assert unfolded_norms(module) == ["norm"]
    module.train()
    before = module.norm.running_mean.clone()
    module(inputs)
    assert not torch.equal(module.norm.running_mean, before)
    freeze_norms_(module)
    before = module.norm.running_mean.clone()
    training = module(inputs)
    assert torch.equal(module.norm.running_mean, before)
    torch.testing.assert_close(module.eval()(inputs), training)
    assert torch.equal(quantize.trained(quantized, module).model.norm.running_mean, before)


@pytest.mark.parametrize(
    ("channels", "options"),
    [(1.0, {}), (1.0, {"precision": "bf16"}), (0.3, {"precision": "bf16", "memory_format": "channels_last"})],
)
def test_the_one_loop_trains_it(channels, options):
    inputs, quantized = done(Residual)
    labels = quantized.model(inputs).argmax(1)
    task = Task(train=[(inputs, labels)], validation=[(inputs, labels)])
    module = quantize.make_trainable(quantized, channels=channels)
    settings = train.TrainOptions(epochs=3, batch_size=32, lr=0.01, augment=False, **options)
    history = train.fit(module, task, settings, progress=False)
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
    assert all(
        value.isfinite().all() for value in quantize.trained(quantized, module).model.state_dict().values()
    )


def test_what_cannot_be_trained():
    inputs, quantized = done(Perceptron)
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(RecipeError, match="is no share of a layer's channels"):
            quantize.make_trainable(quantized, channels=share)
    with pytest.raises(GraphError, match="not in the trained module"):
        quantize.trained(quantized, quantize.make_trainable(done(Residual)[1]))
    nothing = quantize.quantize(made(Perceptron)[0], inputs[:1], [inputs], ignore=["*"])
    with pytest.raises(GraphError, match="no layer is quantized"):
        quantize.make_trainable(nothing)


def test_one_training_for_targets_whose_grids_are_the_same():
    grids = {target: done(Perceptron, target, reduce_range=True)[1] for target in ("onnxruntime", "openvino")}
    assert quantize.same_grid(grids["onnxruntime"], grids["onnxruntime"])
    residual = done(Residual)[1]
    assert not quantize.same_grid(grids["onnxruntime"], residual)
    assert not quantize.same_grid(residual, done(Residual, "openvino")[1])
