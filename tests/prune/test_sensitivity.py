"""Sensitivity by masking against surgery, allocation against brute force, and what is written of them."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sequence_nets import made
from small_cnn import IMAGE, small_cnn
from torch import nn

from lianzhi.errors import ArtifactError, DataError, RecipeError
from lianzhi.prune import Plan, Sensitivity, plan, sensitivity
from lianzhi.prune.allocation import knapsack

PIXELS = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def metric(model):
    with torch.no_grad():
        return float(model(PIXELS).double().square().sum())


def test_masking_is_surgery_and_evaluation():
    net, ratios = small_cnn(), (0.25, 0.5, 0.75)
    state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    found = sensitivity(net, IMAGE, metric, ratios=ratios)
    assert found.base == metric(net)
    assert found.units == {"conv1": 6, "conv2": 8, "fc1": 10}
    assert all(torch.equal(state[key], tensor) for key, tensor in net.state_dict().items())
    decided = plan(net, IMAGE, ratio=0.5)
    for name, units in found.units.items():
        weight = net.get_parameter(f"{name}.weight").detach().flatten(1).abs().sum(1)
        for ratio, value in zip(ratios, found.values[name], strict=True):
            best = torch.argsort(weight)[round(units * ratio) :].sort().values.tolist()
            small = Plan(decided.graph, decided.groups, {}, [])
            small.edit({name: best})
            assert value == pytest.approx(metric(small.apply()), rel=1e-5), (name, ratio)


@pytest.mark.parametrize("fails", [RuntimeError, KeyboardInterrupt])
def test_the_model_is_restored_whatever_happens(fails):
    net, calls = small_cnn(), []
    state = {key: tensor.clone() for key, tensor in net.state_dict().items()}

    def evaluate(model):
        calls.append(any(not torch.equal(state[key], tensor) for key, tensor in model.state_dict().items()))
        if len(calls) == 3:
            raise fails("stop")
        return 1.0

    with pytest.raises(fails, match="stop"):
        sensitivity(net, IMAGE, evaluate)
    assert calls == [False, True, True], "it was masked when it failed"
    assert all(torch.equal(state[key], tensor) for key, tensor in net.state_dict().items())


def test_one_unit_stays_of_a_small_group():
    """As in a plan: three quarters of two units would be both."""
    net = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 3))
    seen = []

    def evaluate(model):
        seen.append(int((model[1].weight != 0).any(0).sum()))
        return 0.0

    sensitivity(net, torch.zeros(1, 4), evaluate, ratios=(0.75,))
    assert seen == [2, 1]


@pytest.mark.parametrize(
    ("ratios", "evaluate", "error", "message"),
    [
        ((), metric, RecipeError, "ratios="),
        ((0.5, 0.25), metric, RecipeError, "the smallest first"),
        ((0.5, 1.0), metric, RecipeError, "between 0 and 1"),
        ((0.5,), lambda model: float("nan"), DataError, "gave nan for the whole model"),
        ((0.5,), lambda model: "good", DataError, "gave 'good' for the whole model"),
    ],
)
def test_what_is_refused(ratios, evaluate, error, message):
    with pytest.raises(error, match=message):
        sensitivity(
            nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2)), torch.zeros(1, 2), evaluate, ratios=ratios
        )


FOUND = Sensitivity(0.9, (0.25, 0.5), {"a<b": (0.85, 0.5), "c": (0.9, 0.92)}, {"a<b": 8, "c": 4})


def test_the_prediction_is_linear_and_does_not_fall():
    assert FOUND.drop("a<b", 0.0) == 0
    assert FOUND.drop("a<b", 0.125) == pytest.approx(0.025)
    assert FOUND.drop("a<b", 0.375) == pytest.approx((0.05 + 0.4) / 2)
    assert FOUND.drop("c", 0.5) == 0
    assert FOUND.drop("c", 0.6) == float("inf")


def test_the_plot_is_svg_with_a_line_a_group(tmp_path):
    FOUND.plot(tmp_path / "curves.svg")
    root = ET.fromstring((tmp_path / "curves.svg").read_text(encoding="utf-8"))
    space = {"svg": "http://www.w3.org/2000/svg"}
    lines = root.findall("svg:polyline", space)
    assert root.tag.endswith("svg")
    assert len(lines) == 2
    points = [tuple(map(float, pair.split(","))) for pair in lines[0].get("points").split()]
    assert len(points) == 3
    assert points[0][1] < points[1][1] < points[2][1], "the steepest is first, and falls"
    assert lines[0].find("svg:title", space).text.startswith("a<b: 0.85, 0.5")


def test_json_round_trip_and_damage():
    assert Sensitivity.from_json(FOUND.to_json()) == FOUND
    for text in ("", "[]", '{"format": 1}', FOUND.to_json().replace("0.25", "0.75"), FOUND.to_json().replace("0.85", "NaN"),
                 FOUND.to_json().replace('"format": 1', '"format": 2')):  # fmt: skip
        with pytest.raises(ArtifactError):
            Sensitivity.from_json(text)


items = st.lists(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9)), min_size=1, max_size=4), min_size=1, max_size=5
)


@settings(max_examples=150, deadline=None)
@given(items, st.integers(0, 30))
def test_the_knapsack_is_exact(rows, needed):
    drops = [[float(drop) for drop, _ in row] for row in rows]
    savings = [[gain for _, gain in row] for row in rows]
    best = min(
        (
            sum(drops[i][choice] for i, choice in enumerate(choices))
            for choices in itertools.product(*(range(len(row)) for row in rows))
            if sum(savings[i][choice] for i, choice in enumerate(choices)) >= needed
        ),
        default=None,
    )
    picked = knapsack(drops, savings, needed)
    if best is None:
        assert picked is None
    else:
        assert sum(savings[i][choice] for i, choice in enumerate(picked)) >= needed
        assert sum(drops[i][choice] for i, choice in enumerate(picked)) == best


@pytest.mark.parametrize("amount", [0.2, 0.35, 0.5])
def test_allocation_is_the_best_of_all(amount):
    """16 units in three groups; every combination is tried."""
    net = nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)
    )
    units = {"0": 4, "2": 8, "4": 4}
    found = Sensitivity(
        1.0, (0.25, 0.5, 0.75), {"0": (0.9, 0.5, 0.4), "2": (0.97, 0.95, 0.7), "4": (0.99, 0.8, 0.75)}, units
    )
    decided = plan(net, torch.zeros(1, 3), ratio=amount, scope="sensitivity", sensitivity=found)
    kept = {name: len(kept) for name, kept in decided.kept.items()}

    def predicted(counts):
        return sum(found.drop(name, 1 - count / units[name]) for name, count in counts.items())

    every = [
        dict(zip(units, counts, strict=True))
        for counts in itertools.product(*(range(total // 4, total + 1) for total in units.values()))
    ]
    best = min(predicted(counts) for counts in every if sum(counts.values()) <= 16 * (1 - amount) + 1e-9)
    assert sum(kept.values()) <= 16 * (1 - amount) + 1e-9
    assert predicted(kept) == pytest.approx(best)


def test_allocation_of_a_granularity():
    net, x = made("Packed")
    measured = sensitivity(
        net, x, lambda module: -float(module(x).detach().square().mean()), granularity=["head_dim", "hidden"]
    )
    decided = plan(
        net, x, ratio=0.3, granularity=["head_dim", "hidden"], scope="sensitivity", sensitivity=measured
    )
    assert set(decided.keeps) == set(measured.values)
    assert decided.verify() < 1e-5


def test_allocation_refuses_what_does_not_fit():
    net, image = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.zeros(1, 3)
    other = Sensitivity(1.0, (0.5,), {"0": (0.9,)}, {"0": 5})
    with pytest.raises(RecipeError, match="measure it anew"):
        plan(net, image, ratio=0.5, scope="sensitivity", sensitivity=other)
    known = Sensitivity(1.0, (0.25,), {"0": (0.9,)}, {"0": 4})
    with pytest.raises(RecipeError, match=r"measured up to a ratio of 0\.25"):
        plan(net, image, ratio=0.5, scope="sensitivity", sensitivity=known)
