"""Techniques that rewrite the float model: it computes the same, and quantizes better."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lianzhi import deploy
from lianzhi.graph import capture
from lianzhi.quantize import quantize
from lianzhi.quantize.placement import layer_name
from lianzhi.quantize.placement.ops import WEIGHTED
from lianzhi.quantize.ptq import awq, bias_absorption, choose, smoothquant
from lianzhi.quantize.rows import rounded_weight
from lianzhi.quantize.scheme import Scheme, schemes

REWRITING = ["equalization", "bias_absorption", "smoothquant", "awq"]


class Block(nn.Module):
    """A transformer's block with norms before, one of them RMSNorm written out; two channels are loud."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.attention = nn.LayerNorm(32), nn.MultiheadAttention(32, 4, batch_first=True)
        self.scale = nn.Parameter(torch.ones(32))
        self.gate, self.up, self.down = nn.Linear(32, 64), nn.Linear(32, 64, bias=False), nn.Linear(64, 32)
        self.out = nn.Linear(32, 4)
        with torch.no_grad():
            self.first.weight[3], self.first.bias[3], self.scale[5] = 40, 8, 30

    def forward(self, x):
        y = self.first(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        y = self.scale * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6))
        return self.out(x + self.down(F.silu(self.gate(y)) * self.up(y)))


class PostNorm(nn.Module):
    """The residual stream reads the norm too, as in a BERT."""

    def __init__(self):
        super().__init__()
        self.norm, self.linear, self.plain = (
            nn.LayerNorm(8),
            nn.Linear(8, 8),
            nn.LayerNorm(8, elementwise_affine=False),
        )
        self.last = nn.Linear(8, 8)

    def forward(self, x):
        x = self.norm(x)
        return self.last(self.plain(x + self.linear(x)))


class Biased(nn.Module):
    """ReLU networks with large biases; the third convolution pads."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.d = (
            nn.Conv2d(3, 8, 3),
            nn.Conv2d(8, 8, 1, groups=2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Linear(8, 4),
        )
        with torch.no_grad():
            self.a.bias.add_(torch.linspace(0, 20, 8))

    def forward(self, x):
        x = self.c(torch.relu(self.b(torch.relu(self.a(x)))))
        return self.d(torch.relu(x).mean([2, 3]))


def rewritten(model, inputs, name, weights="int4"):
    """The module before and after, and what was left out."""
    module = copy.deepcopy(capture(model, inputs[:1]).module)
    weighted = [node for node in module.graph.nodes if node.target in WEIGHTED]
    technique = choose([name])[0]
    grids = schemes("onnxruntime", weights, "float", reduce_range=False)
    return module, technique.apply(module, weighted, [[inputs]], technique.options, grids)


@pytest.mark.parametrize("name", REWRITING)
@pytest.mark.parametrize("net", [Block, PostNorm, Biased])
def test_the_model_computes_the_same(net, name):
    model = net().eval()
    inputs = torch.randn(8, 3, 9, 9) if net is Biased else torch.randn(8, 5, 32 if net is Block else 8)
    module, _ = rewritten(model, inputs, name)
    with torch.no_grad():
        torch.testing.assert_close(module(inputs), model(inputs), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["smoothquant", "awq"])
def test_norms_that_take_a_factor(name):
    module, skipped = rewritten(Block().eval(), torch.randn(8, 5, 32), name)
    left = {"smoothquant": ["attention.out_proj", "down", "out"], "awq": ["attention.out_proj", "out"]}[name]
    assert [layer for layer, _ in skipped] == left
    before = dict(Block().named_parameters())
    keys = ("first.weight", "first.bias", *(["scale"] if name == "smoothquant" else []))
    assert not any(torch.equal(module.get_parameter(key), before[key]) for key in keys)


@pytest.mark.parametrize("name", ["smoothquant", "awq"])
def test_where_the_norm_takes_none_the_factor_is_an_op(name):
    """One is read by the residual sum too, one has no weight."""
    model = PostNorm().eval()
    with torch.no_grad():
        model.norm.weight[3] = 40
    inputs = torch.randn(8, 5, 8)
    module, skipped = rewritten(model, inputs, name)
    assert skipped == []
    nodes = {node.name: node for node in module.graph.nodes}
    norm = nodes["layer_norm"]
    assert {user.target for user in norm.users} == {torch.ops.aten.mul.Tensor, torch.ops.aten.add.Tensor}
    assert torch.equal(module.get_parameter("norm.weight"), model.norm.weight)
    factor = 1 / module.get_buffer("layer_norm_factor.factor")
    torch.testing.assert_close(module.get_parameter("linear.weight"), model.linear.weight * factor)
    assert factor[3] == factor.max() > 1.5 * factor.median()
    with torch.no_grad():
        torch.testing.assert_close(module(inputs), model(inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["smoothquant", "awq"])
def test_the_second_rewriting_goes_into_the_factor_of_the_first(name):
    model, inputs = PostNorm().eval(), torch.randn(8, 5, 8)
    module, _ = rewritten(model, inputs, "smoothquant")
    first = module.get_buffer("layer_norm_factor.factor").clone()
    weighted = [node for node in module.graph.nodes if node.target in WEIGHTED]
    technique = choose([name])[0]
    with torch.no_grad():
        module.get_parameter("linear.weight")[:, 2] *= 9
        module.get_buffer("layer_norm_factor.factor")[2] /= 9
    grids = schemes("onnxruntime", "int4", "float", reduce_range=False)
    assert technique.apply(module, weighted, [[inputs]], technique.options, grids) == []
    assert sum(node.target is torch.ops.aten.mul.Tensor for node in module.graph.nodes) == 2
    assert not torch.equal(module.get_buffer("layer_norm_factor.factor"), first)
    with torch.no_grad():
        torch.testing.assert_close(module(inputs), model(inputs), rtol=1e-5, atol=1e-5)


def test_a_reader_that_stays_float_takes_the_factor_too():
    model, inputs = Block().eval(), torch.randn(8, 5, 32)
    module = copy.deepcopy(capture(model, inputs[:1]).module)
    weighted = [node for node in module.graph.nodes if node.target in WEIGHTED]
    without_gate = [node for node in weighted if layer_name(node) != "gate"]
    technique = choose(["smoothquant"])[0]
    technique.apply(module, without_gate, [[inputs]], technique.options, None)
    assert not torch.equal(module.get_parameter("up.weight"), model.up.weight)
    with torch.no_grad():
        torch.testing.assert_close(module(inputs), model(inputs), rtol=1e-3, atol=1e-3)


def loud_encoder():
    """Two blocks of a BERT, with the outliers that its norms have."""
    torch.manual_seed(0)
    model = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(32, 4, 64, 0.0, "gelu", batch_first=True), 2, enable_nested_tensor=False
    ).eval()
    with torch.no_grad():
        for layer in model.layers:
            for norm in (layer.norm1, layer.norm2):
                norm.weight[5], norm.bias[5] = 30, 10
            layer.linear1.weight[:, 5] /= 30
            layer.self_attn.in_proj_weight[:, 5] /= 30
    return model


def test_smoothquant_helps_a_model_of_norms_after_the_sum(tmp_path):
    model, inputs = loud_encoder(), torch.randn(16, 6, 32)
    made = {
        names: quantize(model, inputs[:1], [inputs], techniques=names, reduce_range=False)
        for names in [(), ("smoothquant",)]
    }
    ratios = {name: item.report["output_sqnr_db"] for name, item in made.items()}
    assert ratios[("smoothquant",)] > ratios[()] + 1
    smooth = made[("smoothquant",)]
    session = deploy.load(smooth.export(tmp_path / "smooth.onnx"), runtime="onnxruntime")
    with torch.no_grad():
        wanted = smooth.model(inputs)
    difference = torch.as_tensor(session(inputs)) - wanted
    assert float(difference.square().mean() / wanted.square().mean()) < 1e-4


def test_smoothquant_shares_outliers_between_both():
    inputs, weights = torch.tensor([100.0, 1.0]), torch.tensor([0.25, 1.0])
    factor = smoothquant(inputs, weights, 0.5)
    torch.testing.assert_close(inputs / factor, weights * factor)
    torch.testing.assert_close(smoothquant(inputs, weights, 1.0), inputs)
    torch.testing.assert_close(smoothquant(inputs, weights, 0.0), 1 / weights)


def test_awq_is_the_best_of_its_grid_and_never_worse_than_nothing():
    torch.manual_seed(0)
    rows = torch.randn(200, 16) * torch.logspace(-1, 1, 16)
    weight, scheme = torch.randn(8, 16), Scheme(4, per_channel=True)
    magnitude, moments = rows.abs().mean(0), rows.T @ rows

    def error(factor):
        rounded = rounded_weight(weight * factor, scheme) / factor
        return float((rows @ (rounded - weight).T).square().sum())

    found = awq([weight], magnitude, moments, lambda item: rounded_weight(item, scheme), grid=10)
    errors = [error(magnitude ** (index / 10)) for index in range(11)]
    assert error(found) == pytest.approx(min(errors), rel=0.05)
    assert error(found) < 0.7 * errors[0]


def test_bias_absorption_takes_what_is_always_there():
    inputs = torch.randn(8, 3, 9, 9)
    model = Biased().eval()
    module, skipped = rewritten(model, inputs, "bias_absorption")
    assert dict(skipped)["c"].startswith("it pads with zeros")
    with torch.no_grad():
        before = model.a(inputs).movedim(1, 0).flatten(1).amin(1)
    taken = model.a.bias - module.get_parameter("a.bias")
    torch.testing.assert_close(taken, before.clamp(min=0), rtol=1e-4, atol=1e-4)
    assert (taken > 5).any()
    assert (bias_absorption(torch.ones(1), torch.ones(1), torch.zeros(1), deviations=3) == 0).all()


@pytest.mark.parametrize(
    ("name", "net", "options", "share"),
    [
        ("smoothquant", Block, {}, 0.4),
        ("awq", Block, {"weights": "int4", "activations": "float", "techniques": ["gptq"]}, 0.8),
    ],
)
def test_it_quantizes_better(name, net, options, share):
    model, inputs = net().eval(), torch.randn(64, 7, 32)
    others = options.pop("techniques", [])
    with torch.no_grad():
        exact = model(inputs)
        plain, better = (
            (
                quantize(model, inputs[:1], [inputs], techniques=names, reduce_range=False, **options).model(
                    inputs
                )
                - exact
            )
            .square()
            .mean()
            for names in (others, [*others, name])
        )
    assert better < share * plain


def test_absorption_leaves_a_smaller_range():
    model, inputs = Biased().eval(), torch.randn(64, 3, 9, 9)
    reports = [
        quantize(model, inputs[:1], [inputs], techniques=names).report for names in ((), ["bias_absorption"])
    ]
    steps = [next(row["scale"] for row in report["values"] if row["name"] == "relu") for report in reports]
    assert steps[1] < 0.6 * steps[0]
    noise = [
        next(row["output_sqnr_db"] for row in report["layers"] if row["name"] == "b") for report in reports
    ]
    assert noise[1] > noise[0]


def test_absorption_comes_after_equalization():
    names = [item.name for item in choose(["gptq", "bias_absorption", "equalization"])]
    assert names == ["equalization", "bias_absorption", "gptq"]
