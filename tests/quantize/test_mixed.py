"""Mixed precision: the table, the knapsack against brute force, and the file that comes of it."""

import itertools
import random

import pytest
import torch
from nets import Feed, Inception, Residual, made

from lianzhi import deploy, quantize
from lianzhi.errors import RecipeError
from lianzhi.quantize.layers import CHOICES
from lianzhi.quantize.lower import lower
from lianzhi.quantize.mixed import Sensitivity, rounded, table_text

allocate = quantize.allocate


def invented(seed, layers=6):
    draw = random.Random(seed)
    table = []
    for index in range(layers):
        weights, harm = draw.randint(10, 2000), draw.random()
        table += [
            Sensitivity(f"layer{index}", choice, weights * bits // 8, harm * draw.random() * 2.0**-bits)
            for choice, bits in CHOICES.items()
        ]
    return table


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("budget", [0.13, 0.2, 0.5, 1.0])
def test_the_knapsack_against_brute_force(seed, budget):
    table = invented(seed)
    rows = {(row.layer, row.choice): row for row in table}
    layers = list(dict.fromkeys(row.layer for row in table))
    whole = sum(rows[layer, "float"].bytes for layer in layers)

    def cost(choice):
        taken = [rows[pair] for pair in choice.items()]
        return sum(row.bytes for row in taken), sum(row.damage for row in taken)

    every = (dict(zip(layers, item, strict=True)) for item in itertools.product(CHOICES, repeat=len(layers)))
    best = min(damage for size, damage in map(cost, every) if size <= budget * whole)
    size, damage = cost(allocate(table, budget))
    assert size <= budget * whole
    assert damage == pytest.approx(best, rel=1e-6)


def test_a_budget_that_cannot_be_met():
    with pytest.raises(
        RecipeError, match=r"budget: 0\.1 of \d+ bytes cannot be met; the smallest .* takes 0\.12"
    ):
        allocate(invented(0), 0.1)
    for wrong in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(RecipeError, match="is no share of the float bytes"):
            allocate(invented(0), wrong)
    with pytest.raises(RecipeError, match="holds no layer"):
        allocate([], 0.5)


def test_rounding_a_weight():
    weight = torch.randn(8, 3, 3, 3)
    assert torch.equal(rounded(weight, "float"), weight)
    for choice in ("int8", "int4"):
        steps = len(rounded(weight, choice)[0].unique())
        assert steps <= 2 ** CHOICES[choice] - 1
    coarse, fine = ((rounded(weight, choice) - weight).square().mean() for choice in ("int4", "int8"))
    assert fine < 0.02 * coarse


@pytest.mark.parametrize("net", [Residual, Feed], ids=lambda net: net.__name__)
def test_the_table_of_a_model(net):
    model, inputs = made(net)
    table = quantize.sensitivity(model, inputs[:1], [inputs], samples=32)
    rows = {(row.layer, row.choice): row for row in table}
    for layer in {row.layer for row in table}:
        numbers = model.get_submodule(layer).weight
        assert rows[layer, "float"].bytes == 4 * numbers.numel()
        assert rows[layer, "float"].damage == 0
        assert rows[layer, "int8"].bytes == numbers.numel() + 4 * len(numbers)
        assert rows[layer, "int8"].damage < 0.2 * rows[layer, "int4"].damage
    assert quantize.sensitivity(model, inputs[:1], [inputs], samples=32) == table
    text = table_text(table)
    assert len(text.splitlines()) == 1 + len(table) // 3
    assert "int4" in text


@pytest.mark.parametrize(("net", "budget"), [(Residual, 0.27), (Inception, 0.3)])
def test_each_layer_as_chosen(net, budget, tmp_path):
    model, inputs = made(net)
    table = quantize.sensitivity(model, inputs[:1], [inputs])
    layers = allocate(table, budget)
    assert len(set(layers.values())) > 1
    mixed = quantize.quantize(model, inputs[:1], [inputs], layers=layers)
    assert mixed.report["mixed"] == layers
    stored = lower(mixed.model).state_dict()
    for layer, choice in layers.items():
        kinds = {
            name.rpartition("_")[2]
            for name in stored
            if name.startswith(f"{layer}.weight_") and "scale" not in name
        }
        assert kinds == ({choice} if choice != "float" else set())
    with torch.no_grad():
        expected, exact = mixed.model(inputs), model(inputs)
    found = deploy.load(mixed.export(tmp_path / "m.onnx"), runtime="onnxruntime", threads=1)(inputs)
    assert (found - expected).square().mean() < 1e-3 * expected.square().mean()
    errors = [
        (quantize.quantize(model, inputs[:1], [inputs], layers={"*": choice}).model(inputs) - exact)
        .square()
        .mean()
        for choice in ("int8", "int4")
    ]
    assert errors[0] * 0.5 < (expected - exact).square().mean() < errors[1]


def test_int4_everywhere_is_int4():
    model, inputs = made(Residual)
    patterns = quantize.quantize(model, inputs[:1], [inputs], layers={"*": "int4"})
    weights = quantize.quantize(model, inputs[:1], [inputs], weights="int4")
    with torch.no_grad():
        torch.testing.assert_close(patterns.model(inputs), weights.model(inputs), rtol=1e-5, atol=1e-5)


def test_the_first_pattern_counts():
    model, inputs = made(Residual)
    done = quantize.quantize(model, inputs[:1], [inputs], layers={"conv1": "float", "conv*": "int4"})
    assert done.report["mixed"] == {"conv1": "float", "conv2": "int4"}
    assert {row["name"] for row in done.report["layers"]} == {"conv2", "linear"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": {"conv1": "int3"}}, "'conv1' is 'int3', and a choice is int4, int8, float"),
        ({"layers": {"cov1": "int4"}}, "'cov1' matches no layer; did you mean 'conv1'"),
        ({"layers": {"conv1": "int8"}, "weights": "int4"}, "what they do not name is int8"),
    ],
)
def test_wrong_choices(options, message):
    model, inputs = made(Residual)
    with pytest.raises(RecipeError, match=message):
        quantize.quantize(model, inputs[:1], [inputs], **options)


def test_wrong_tables():
    model, inputs = made(Residual)
    with pytest.raises(RecipeError, match="'int5' is not offered"):
        quantize.sensitivity(model, inputs[:1], [inputs], choices=["int5"])
    with pytest.raises(RecipeError, match="target 'onnxruntim'"):
        quantize.sensitivity(model, inputs[:1], [inputs], target="onnxruntim")
