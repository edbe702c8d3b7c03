"""Mixed precision: the table, the knapsack against brute force, and the file that comes of it."""

import itertools
import random

import pytest
import torch
from nets import Feed, Inception, Residual, made
from test_tables import Tied
from test_tables import made as with_tables

from lianzhi import deploy, quantize
from lianzhi.errors import RecipeError
from lianzhi.quantize.control import sample_error
from lianzhi.quantize.layers import CHOICES
from lianzhi.quantize.lower import lower
from lianzhi.quantize.mixed import Sensitivity, rounded

allocate = quantize.allocate


def invented(seed, layers=6):
    draw = random.Random(seed)
    table = []
    for index in range(layers):
        weights, harm = draw.randint(10, 2000), draw.random()
        table += [
            Sensitivity(
                f"layer{index}", choice, weights * bits // 8, harm * draw.random() * 2.0**-bits, weights * 4
            )
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
    assert {row.float_bytes for row in table if row.layer == layer} == {rows[layer, "float"].bytes}


def test_the_budget_is_a_share_of_the_float_bytes_whatever_the_choices():
    model, inputs = made(Residual)
    table = quantize.sensitivity(model, inputs[:1], [inputs], choices=["int4", "int8"])
    whole = sum(row.float_bytes for row in table if row.choice == "int8")
    layers = allocate(table, 0.24)
    rows = {(row.layer, row.choice): row.bytes for row in table}
    assert set(layers.values()) == {"int4", "int8"}
    assert sum(rows[pair] for pair in layers.items()) <= 0.24 * whole


def test_tables_are_in_the_table(tmp_path):
    model, ids = with_tables()
    table = quantize.sensitivity(model, ids[:1], [ids], samples=16)
    rows = {(row.layer, row.choice): row for row in table}
    assert {layer for layer, _ in rows} == {"word", "place", "kind", "out"}
    for name in ("word", "place", "kind"):
        numbers = model.get_submodule(name).weight
        assert (name, "int4") not in rows
        assert rows[name, "int8"].bytes == numbers.numel() + 4 * len(numbers)
        assert 0 < rows[name, "int8"].damage < 1e-3
    layers = allocate(table, 0.5)
    assert {"float", "int8"} <= set(layers.values())
    mixed = quantize.quantize(model, ids[:2], [ids], layers=layers)
    kept = {row["name"] for row in mixed.report["layers"] if row["type"] == "embedding"}
    assert kept == {name for name in ("word", "place", "kind") if layers[name] == "int8"}


def test_a_tied_table_is_priced_and_rounded_with_its_layer():
    model, ids = with_tables(Tied)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows = {(row.layer, row.choice): row for row in quantize.sensitivity(model, ids[:1], [ids], samples=16)}
    assert {layer for layer, _ in rows} == {"hidden", "decoder"}
    numbers, scales = model.word.weight.numel(), 4 * len(model.word.weight)
    assert rows["decoder", "float"].bytes == 4 * numbers
    assert rows["decoder", "int8"].bytes == numbers + scales
    assert rows["decoder", "int4"].bytes == numbers // 2 + scales + numbers + scales  # the table has 8 bits
    with torch.no_grad():
        exact = model(ids[:16])
        for choice in ("int8", "int4"):
            model.decoder.weight = torch.nn.Parameter(rounded(before["decoder.weight"], choice))
            model.word.weight = torch.nn.Parameter(rounded(before["word.weight"], "int8"))
            error = sample_error([exact], [model(ids[:16])])
            assert rows["decoder", choice].damage == pytest.approx(error, rel=1e-3)


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
    for wrong in ([], "int8"):
        with pytest.raises(RecipeError, match="give several of int4, int8, float"):
            quantize.sensitivity(model, inputs[:1], [inputs], choices=wrong)
    for wrong in (0, -1):
        with pytest.raises(RecipeError, match=f"samples: {wrong} must be 1 or more"):
            quantize.sensitivity(model, inputs[:1], [inputs], samples=wrong)
