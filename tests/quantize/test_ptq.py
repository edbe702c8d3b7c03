"""Techniques of post-training quantization: closed forms, oracles, and their use through `quantize`."""

import copy
import itertools

import pytest
import torch
from nets import Feed, Inception, Inverted, Residual, made
from torch.nn import functional as F

from lianzhi import deploy, measure
from lianzhi.errors import RecipeError
from lianzhi.graph import capture, get_tensor
from lianzhi.quantize import quantize, rounded_nonzero
from lianzhi.quantize.calibrate import watch
from lianzhi.quantize.fold import fold_batch_norm
from lianzhi.quantize.placement.ops import LINEAR, WEIGHTED
from lianzhi.quantize.prepare import prepare
from lianzhi.quantize.ptq import adaround, bias_correction, choose, gptq
from lianzhi.quantize.ptq.bias_correction import clamp_after, stored_bias
from lianzhi.quantize.ptq.grams import as_matrix, columns, groups_of

ROUNDING = ["gptq", "adaround"]


def problem(seed=0, out=16, features=6):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(features, 2, generator=generator)  # correlated, or nothing is gained
    inputs = mix @ torch.randn(1, 2, 200, generator=generator)
    inputs = inputs + 0.1 * torch.randn(inputs.shape, generator=generator)
    weight = torch.randn(1, out, features, generator=generator)
    return weight, inputs, inputs @ inputs.transpose(1, 2), weight.abs().amax(2) / 7


def error(weight, rounded, inputs):
    return ((rounded - weight) @ inputs).square().sum(2)


def nearest(weight, scale):
    return (weight / scale[..., None]).round() * scale[..., None]


@pytest.mark.parametrize("name", ROUNDING)
@pytest.mark.parametrize("seed", range(3))
def test_rounding_lies_between_the_nearest_and_the_best_of_all(name, seed):
    weight, inputs, moments, scale = problem(seed)
    if name == "gptq":
        rounded = gptq(weight, moments, scale, -7, 7)
    else:
        rounded = adaround(weight, moments, moments, scale, -7, 7)
    steps = rounded / scale[..., None]
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
    assert steps.abs().max() <= 7.001
    floor = (weight / scale[..., None]).floor()
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=weight.shape[2])))
    best = torch.stack(
        [error(weight, (floor + up).clamp(-7, 7) * scale[..., None], inputs) for up in every]
    ).amin(0)
    found, plain = error(weight, rounded, inputs).sum(), error(weight, nearest(weight, scale), inputs).sum()
    assert found < 0.9 * plain
    if name == "adaround":
        assert best.sum() * 0.999 <= found < best.sum() + 0.3 * (plain - best.sum())


def test_gptq_of_independent_inputs_is_plain_rounding():
    weight, _, _, scale = problem()
    hessian = torch.diag(torch.tensor([1.0, 5.0, 2.0, 0.5, 3.0, 4.0]))[None]
    torch.testing.assert_close(gptq(weight, hessian, scale, -7, 7), nearest(weight, scale))


def test_gptq_of_an_input_that_is_always_zero():
    weight, _, _, scale = problem()
    rounded = gptq(weight, torch.zeros(1, 6, 6), scale, -7, 7)
    torch.testing.assert_close(rounded, nearest(weight, scale))


@pytest.mark.parametrize("name", ROUNDING)
@pytest.mark.parametrize("most", [7, 127])
def test_weights_that_are_zero_stay_zero_and_the_others_make_up_for_it(name, most):
    weight, inputs, moments, _ = problem(features=40)
    weight = weight * (weight.abs() > 1)  # two thirds are pruned
    scale = weight.abs().amax(2) / most
    if name == "gptq":
        rounded = gptq(weight, moments, scale, -most, most)
    else:
        rounded = adaround(weight, moments, moments, scale, -most, most)
    assert not rounded[weight == 0].any()
    plain = error(weight, nearest(weight, scale), inputs).sum()
    assert error(weight, rounded, inputs).sum() < 0.8 * plain


@pytest.mark.parametrize("net", [Inception, Inverted, Feed])
def test_a_layer_is_the_product_of_its_weight_and_its_columns(net):
    model, inputs = made(net)
    graph = capture(model, inputs[:1])
    for node in graph.nodes:
        if node.op != "call_function" or not any(kind in str(node.target) for kind in ("conv2d", "linear")):
            continue
        weight, value = node.args[1].meta["val"], node.args[0].meta["val"]
        weight, value = torch.randn(weight.shape), torch.randn(2, *value.shape[1:])
        expected = node.target(value, weight, None, *node.args[3:])
        product = as_matrix(weight, groups_of(node)) @ columns(node, value, weight)
        channels = -1 if "linear" in str(node.target) else 1
        torch.testing.assert_close(
            product.flatten(0, 1), expected.movedim(channels, 0).flatten(1), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("padding", ["same", "valid", 2])
def test_columns_of_a_padded_convolution(padding):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(4, 3, 2, 3))

        def forward(self, x):
            return F.conv2d(x, self.weight, padding=padding, dilation=2)

    model, value = Net(), torch.randn(2, 3, 9, 8)
    node = next(node for node in capture(model, value).nodes if "conv2d" in str(node.target))
    product = as_matrix(model.weight, 1) @ columns(node, value, model.weight)
    torch.testing.assert_close(product[0], model(value).movedim(1, 0).flatten(1), rtol=1e-4, atol=1e-4)


def test_bias_correction_of_tokens_takes_the_last_axis():
    exact, rounded = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    expected = (exact - rounded).mean((0, 1))
    torch.testing.assert_close(bias_correction([exact], [rounded], axis=-1), expected)


def test_bias_correction_before_a_clamp_is_never_worse_behind_it():
    exact = torch.randn(500, 8) * 3 - torch.arange(8.0)
    rounded = 0.5 * exact - 0.5 + torch.randn(exact.shape)

    def relu(values):
        return values.clamp(min=0)

    full = bias_correction([exact], [rounded])
    found = bias_correction([exact], [rounded], clamp=relu)
    errors = [(relu(exact) - relu(rounded + shift)).square().mean(0) for shift in (found, full, 0 * full)]
    assert (errors[0] <= errors[1] + 1e-6).all()
    assert (errors[0] <= errors[2] + 1e-6).all()
    assert (errors[0] < errors[1] - 1e-3).any()
    ratio = found / full
    torch.testing.assert_close(4 * ratio, (4 * ratio).round(), rtol=0, atol=1e-3)


def correlated(net):
    """A network and inputs of which every value depends on a few numbers, as in real data."""
    model, inputs = made(net)
    flat = inputs.flatten(1)
    return model, (flat[:, :6] @ torch.randn(6, flat.shape[1])).reshape(inputs.shape) / 6**0.5


def output_error(net, techniques, **options):
    model, inputs = correlated(net)
    quantized = quantize(
        model, inputs[:1], list(inputs.split(16)), reduce_range=False, techniques=techniques, **options
    )
    with torch.no_grad():
        exact, found = model(inputs), quantized.model(inputs)
    return float((exact - found).square().mean()), quantized, inputs


@pytest.mark.parametrize("name", ROUNDING)
@pytest.mark.parametrize("net", [Inverted, Feed])
def test_rounding_in_context_beats_rounding_to_the_nearest(net, name):
    options = {"weights": "int4", "activations": "float"}
    plain, before, _ = output_error(net, (), **options)
    better, after, _ = output_error(net, [name], **options)
    assert better < 0.8 * plain
    assert after.report["techniques"] == [{**choose([name])[0].to_dict(), "skipped": []}]
    assert before.report["techniques"] == []
    for row in after.report["layers"]:
        assert 5 < row["weight_sqnr_db"] < 40  # of the float weights, not of the rounded ones


@pytest.mark.parametrize("net", [Residual, Inverted, Feed])
@pytest.mark.parametrize(
    "techniques",
    [
        ["equalization", "gptq"],
        ["smoothquant", "adaround"],
        ["awq", "bias_absorption", "brecq"],
        ["bias_correction"],
    ],
)
def test_no_technique_gives_a_pruned_weight_a_value(net, techniques):
    model, inputs = correlated(net)
    weights = {name: weight for name, weight in model.named_parameters() if weight.dim() > 1}
    with torch.no_grad():
        for weight in weights.values():
            weight.mul_(weight.abs() >= weight.abs().flatten().quantile(0.7))
    quantized = quantize(model, inputs[:1], list(inputs.split(32)), techniques=techniques, reduce_range=False)
    kept = rounded_nonzero(quantized.model)
    assert kept
    for name, count in kept.items():
        assert 0 < count <= int(weights[name].count_nonzero())


def test_bias_correction_centres_the_output():
    plain, *_ = output_error(Inverted, (), weights="int4")
    model, _ = correlated(Inverted)
    _, quantized, inputs = output_error(Inverted, ["bias_correction"], weights="int4")
    with torch.no_grad():
        shift = (model(inputs) - quantized.model(inputs)).mean(0).abs().max()
        spread = (model(inputs) - quantized.model(inputs)).std(0).max()
    assert shift < 0.05 * spread
    assert plain > 0


@pytest.mark.parametrize("net", [Inverted, Residual])
def test_bias_correction_is_that_of_running_the_whole_network_for_every_layer(net):
    model, inputs = correlated(net)
    batches = [[batch] for batch in inputs.split(16)]
    floating = copy.deepcopy(capture(model, inputs[:1]).module)
    prepare(floating)
    fold_batch_norm(floating)
    exact = {node.name: node for node in floating.graph.nodes}
    options = {"weights": "int4", "reduce_range": False}
    module = quantize(model, inputs[:1], list(inputs.split(16)), **options).model

    def outputs(module, node):
        found = []
        watch(module, [node], batches, lambda _, values: found.append(values.clone()))
        return found

    for node in [node for node in module.graph.nodes if node.target in WEIGHTED]:
        clamp = clamp_after(exact[node.name])
        axis = -1 if node.target in LINEAR else 1
        expected, found = outputs(floating, exact[node.name]), outputs(module, node)
        with torch.no_grad():
            bias = get_tensor(module, stored_bias(node))
            bias.add_(bias_correction(expected, found, axis=axis, clamp=clamp))
    made_at_once = quantize(
        model, inputs[:1], list(inputs.split(16)), techniques=["bias_correction"], **options
    )
    corrected = made_at_once.model.state_dict()
    for name, value in module.state_dict().items():
        torch.testing.assert_close(corrected[name], value, rtol=1e-4, atol=1e-4)


def test_what_techniques_made_exports_and_runs(tmp_path):
    _, quantized, inputs = output_error(Inverted, ["bias_correction", "gptq"], weights="int4")
    with torch.no_grad():
        expected = quantized.model(inputs)
    path = quantized.export(tmp_path / "model.onnx")
    for runtime in ("onnxruntime", "openvino"):
        found = deploy.load(path, runtime=runtime, threads=1)(inputs)
        assert (found - expected).square().mean() < 1e-3 * expected.square().mean()


def test_int4_weights_take_half_a_byte(tmp_path):
    model = torch.nn.Sequential(
        torch.nn.Conv2d(33, 127, 3), torch.nn.ReLU(), torch.nn.Conv2d(127, 127, 3)
    ).eval()
    inputs = torch.randn(4, 33, 8, 8)
    quantized = quantize(model, inputs[:1], [inputs], weights="int4", activations="float")
    path = quantized.export(tmp_path / "model.onnx")
    assert measure.size(path) < 0.5 * 1.06 * sum(weight.numel() for weight in model.parameters()) + 4096
    with torch.no_grad():
        expected = quantized.model(inputs)
    found = deploy.load(path, runtime="onnxruntime", threads=1)(inputs)
    assert (found - expected).square().mean() < 1e-3 * expected.square().mean()


class Chain(torch.nn.Module):
    """Convolutions of every kind, one after another; ranges of very different size."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.depthwise = torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3, groups=8)
        self.grouped, self.last = torch.nn.Conv2d(8, 6, 1, groups=2), torch.nn.Linear(6, 4)
        with torch.no_grad():
            self.first.weight.mul_(torch.logspace(-2, 2, 8).view(-1, 1, 1, 1))

    def forward(self, x):
        x = torch.relu(self.depthwise(torch.relu(self.first(x))))
        return self.last(torch.relu(self.grouped(x)).mean([2, 3]))


def test_equalization_changes_the_ranges_and_not_the_result():
    model, inputs = Chain().eval(), torch.randn(16, 3, 9, 9)
    with torch.no_grad():
        exact = model(inputs)
    module = capture(model, inputs[:1]).module
    weighted = [node for node in module.graph.nodes if node.target in WEIGHTED]
    technique = choose(["equalization"])[0]
    skipped = technique.apply(module, weighted, [[inputs]], technique.options)
    with torch.no_grad():
        torch.testing.assert_close(module(inputs), exact, rtol=1e-4, atol=1e-4)
    assert [name for name, _ in skipped] == ["first", "last"]
    before, between = (module.get_parameter(f"{name}.weight").abs() for name in ("first", "depthwise"))
    largest = before.flatten(1).amax(1)
    torch.testing.assert_close(largest, between.flatten(1).amax(1), rtol=0.05, atol=0)
    assert largest.max() / largest.min() < 100  # of 10,000


def test_equalization_helps_a_model_of_unequal_channels():
    model, inputs = Chain().eval(), torch.randn(64, 3, 9, 9)
    with torch.no_grad():
        exact = model(inputs)
        errors = [
            (quantize(model, inputs[:1], [inputs], techniques=names).model(inputs) - exact).square().mean()
            for names in ((), ("equalization",))
        ]
    assert errors[1] < 0.5 * errors[0]


def test_techniques_are_chosen_in_words():
    for wrong, message in (
        ("gptqq", "did you mean 'gptq'"),
        ({"gptq": {"damp": 1}}, "unknown option 'damp'"),
        ({"gptq": 3}, "must be a mapping"),
        (3, "write a name"),
    ):
        with pytest.raises(RecipeError, match=message):
            choose([wrong])
    with pytest.raises(RecipeError, match="given twice"):
        choose(["gptq", "gptq"])
