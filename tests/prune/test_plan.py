"""`plan`: budgets, scopes, limits, patterns, what it prints and saves, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
from coupled_nets import made
from torch import nn

import lianzhi as lz
from lianzhi.errors import ArtifactError, GraphError, RecipeError
from lianzhi.graph import capture, macs
from lianzhi.prune import Plan, criteria, plan

IMAGE = torch.zeros(1, 3, 12, 12)


def wide(*widths):
    """Convolutions of these widths with BatchNorm, and a classifier."""
    layers, inputs = [], 3
    for width in widths:
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 5))


def test_layer_scope_takes_the_same_share_everywhere():
    decided = plan(wide(16, 32, 8), IMAGE, ratio=0.25, scope="layer")
    assert [(row["before"], row["after"]) for row in decided.layers] == [(16, 12), (32, 24), (8, 6), (5, 5)]


def test_global_scope_takes_the_lowest_of_all():
    net = wide(8, 8)
    with torch.no_grad():
        net[1].weight.copy_(torch.arange(1.0, 9.0))
        net[4].weight.copy_(-torch.arange(5.0, 13.0))
    decided = plan(net, IMAGE, ratio=6 / 16, criterion="bn_scale")
    keeps = [torch.nonzero(keep).reshape(-1).tolist() for keep in decided.keeps.values()]
    # 1 2 3 4 | 5 (twice, the first group's first): five and one
    assert keeps == [[5, 6, 7], [1, 2, 3, 4, 5, 6, 7]]


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("budget", [{"macs": 0.5}, {"macs": 0.2}, {"parameters": 0.4}, {"bytes": 0.5}])
def test_budgets_are_met_by_the_result_and_not_overshot(scope, budget):
    net = wide(24, 32, 40)
    decided = plan(net, IMAGE, scope=scope, **budget)
    small = decided.apply()
    ((name, amount),) = budget.items()
    if name == "macs":
        share = macs(capture(small, IMAGE)) / macs(capture(net, IMAGE))
    elif name == "parameters":
        share = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in net.parameters())
    else:
        share = sum(t.numel() * t.element_size() for t in small.state_dict().values()) / sum(
            t.numel() * t.element_size() for t in net.state_dict().values()
        )
    assert amount - 0.06 < share <= amount
    assert decided.verify() < 1e-5


def test_a_budget_that_cannot_be_met_names_the_smallest_that_can():
    with pytest.raises(RecipeError, match=r"macs=0\.01 cannot be met: (0\.\d+) is the least") as caught:
        plan(wide(16, 16), IMAGE, macs=0.01, min_channels=4)
    least = float(str(caught.value).split("ask for macs=")[1].split()[0])
    decided = plan(wide(16, 16), IMAGE, macs=least, min_channels=4)
    assert [row["after"] for row in decided.layers] == [4, 4, 5]


@pytest.mark.parametrize("step", [4, 8, 16])
@pytest.mark.parametrize("name", ["ratio", "macs"])
def test_round_to_gives_multiples(step, name):
    decided = plan(wide(32, 48, 64), IMAGE, round_to=step, criterion="random", **{name: 0.45})
    assert all(row["after"] % step == 0 for row in decided.layers[:-1])
    assert any(row["after"] < row["before"] for row in decided.layers)


def test_round_to_counts_channels_where_a_unit_has_several():
    net = nn.Sequential(
        nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 3, groups=16), nn.Flatten(), nn.Linear(32 * 100, 2)
    )
    decided = plan(net, IMAGE, ratio=0.4, round_to=8)
    assert [row["after"] for row in decided.layers] == [16, 16, 2] or decided.layers[0]["after"] % 8 == 0
    assert decided.layers[0]["after"] < 32


def test_limits_hold_and_the_plan_says_whom_they_saved():
    net = wide(10, 10)
    with torch.no_grad():
        net[0].weight.mul_(1e-3)
    decided = plan(net, IMAGE, ratio=0.5, max_layer_ratio=0.8)
    assert decided.layers[0]["after"] == 2
    assert decided.notes == ["0: the ranking leaves none of 10 channels; its best 2 are kept"]
    assert decided.notes[0] in decided.table()
    best = net[0].weight.abs().sum((1, 2, 3)).topk(2).indices
    assert set(torch.nonzero(decided.keeps["0"]).reshape(-1).tolist()) == set(best.tolist())
    assert [row["after"] for row in plan(net, IMAGE, ratio=0.9, min_channels=3).layers] == [3, 3, 5]


def test_ignore_by_name_glob_and_container():
    net = nn.Sequential(wide(8, 8)[:3], nn.Sequential(*wide(8, 8)[3:]))
    net.left = nn.Identity()
    for pattern, expected in (("0.0", [8, 2, 5]), ("0", [8, 2, 5]), ("1.*", [2, 8, 5]), ("0.1", [8, 2, 5])):
        decided = plan(net, IMAGE, ratio=0.75, scope="layer", ignore=[pattern])
        assert [row["after"] for row in decided.layers] == expected, pattern


@pytest.mark.parametrize(("budget", "dear"), [("macs", "0"), ("parameters", "3")])
def test_by_cost_what_is_dear_and_of_equal_use_goes_first(budget, dear):
    """Equal scores: the layer on the large map is dear in MACs, the one with the large matrix in parameters."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(8 * 4, 8), nn.Linear(8, 40)
    )
    inputs = torch.zeros(1, 3, 8, 8)

    def equal(view):
        return torch.ones(len(view))

    decided = plan(net, inputs, criterion=equal, normalize="cost", **{budget: 0.8})
    lost = {name: len(keep) - int(keep.sum()) for name, keep in decided.keeps.items()}
    assert lost[dear] > 0
    assert all(count == 0 for name, count in lost.items() if name != dear), lost
    assert decided.verify() < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of ratio, macs, parameters, bytes, latency .got none"),
        ({"ratio": 0.5, "macs": 0.5}, "exactly one .* .got ratio, macs"),
        ({"ratio": 0.0}, "above 0 and below 1"),
        ({"ratio": 1.0}, "above 0 and below 1"),
        ({"macs": -0.5}, "above 0 and below 1"),
        ({"ratio": float("nan")}, "above 0 and below 1"),
        ({"latency": 0.5, "target": "onnxruntim"}, "did you mean 'onnxruntime'"),
        ({"latency": 0.5, "batch": 0}, "batch=0"),
        ({"ratio": 0.5, "scope": "sensitivity"}, "are given together"),
        ({"ratio": 0.5, "granularity": "headz"}, "did you mean 'heads'"),
        ({"ratio": 0.5, "granularity": ["layers", "ffn"]}, "stands alone"),
        ({"ratio": 0.5, "scope": "globl"}, "did you mean 'global'"),
        ({"ratio": 0.5, "criterion": "l3"}, "unknown criterion 'l3'"),
        ({"ratio": 0.5, "criterion_options": {"per_wait": True}}, "did you mean 'per_weight'"),
        ({"ratio": 0.5, "criterion": "bn_scale", "criterion_options": {"x": 1}}, "takes no options"),
        ({"ratio": 0.5, "aggregate": "median"}, "mean, sum, max, first"),
        ({"ratio": 0.5, "normalize": "l2"}, "none, mean, max, standard"),
        ({"ratio": 0.5, "normalize": "cost"}, "a budget that is counted"),
        ({"ratio": 0.5, "ignore": ["layr1"]}, "'layr1' matches no layer"),
        ({"ratio": 0.5, "round_to": 0}, "round_to=0"),
        ({"ratio": 0.5, "min_channels": 1.5}, "min_channels=1.5"),
        ({"ratio": 0.5, "max_layer_ratio": 0}, "max_layer_ratio=0"),
        ({"ratio": 0.5, "calibration": [IMAGE]}, "leave out calibration"),
        ({"ratio": "0.5"}, r"ratio='0\.5': the share"),
        ({"ratio": 0.5, "max_layer_ratio": "most"}, "max_layer_ratio='most'"),
        ({"ratio": 0.5, "ignore": None}, "ignore=None: a name, glob or type"),
        ({"ratio": 0.5, "criterion": None}, r"criterion=None: a name \(apoz, "),
        ({"ratio": 0.5, "criterion_options": 3}, "criterion_options=3"),
        ({"ratio": 0.5, "scope": None}, "unknown scope 'None'"),
        ({"ratio": 0.5, "granularity": None}, "granularity=None: one or several of channel"),
        ({"ratio": 0.5, "scope": "sensitivity", "sensitivity": 3}, "sensitivity is a int"),
        (
            {"macs": 0.5, "normalize": "cost", "criterion": lambda view: -torch.ones(len(view))},
            "gives '0' one below zero",
        ),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        plan(wide(8), IMAGE, **options)


@pytest.mark.parametrize("model", ["resnet20", lambda x: x, None])
def test_what_is_no_model_is_refused(model):
    with pytest.raises(GraphError, match=r"not a torch\.nn\.Module"):
        plan(model, IMAGE, ratio=0.5)


def test_a_model_without_anything_to_prune_says_why():
    with pytest.raises(GraphError, match=r"no channels that can be pruned \(0: it is the model's output"):
        plan(nn.Sequential(nn.Linear(4, 3)), torch.zeros(1, 4), ratio=0.5)
    with pytest.raises(GraphError, match="criterion 'bn_scale' gives it no score"):
        plan(
            nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)),
            torch.zeros(1, 4),
            ratio=0.5,
            criterion="bn_scale",
        )


def test_a_criterion_is_any_function_and_its_answer_is_checked():
    net = wide(4, 4)
    decided = plan(net, IMAGE, ratio=0.5, scope="layer", criterion=lambda view: torch.arange(len(view)))
    assert all(keep.tolist() == [False, False, True, True] for keep in decided.keeps.values())
    with pytest.raises(GraphError, match="one score for each of 4 channels"):
        plan(net, IMAGE, ratio=0.5, criterion=lambda view: torch.zeros(3))
    with pytest.raises(GraphError, match="not finite"):
        plan(net, IMAGE, ratio=0.5, criterion=lambda view: torch.full((len(view),), float("nan")))


def test_unscored_groups_are_left_whole_and_reported():
    net = nn.Sequential(wide(6)[0:3], nn.Conv2d(6, 6, 1), nn.Flatten(), nn.Linear(6 * 144, 2))
    decided = plan(net, IMAGE, ratio=0.5, criterion="bn_scale")
    assert [row["after"] for row in decided.layers] == [3, 6, 2]
    assert ("1", "criterion 'bn_scale' gives it no score") in decided.unprunable


def test_the_model_is_not_changed_and_the_table_reads_well():
    net = wide(8, 8)
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    decided = plan(net, IMAGE, ratio=0.5)
    assert str(decided) == decided.table()
    assert "MACs" in decided.table()
    assert "not pruned: 8 (it is the model's output)" in decided.table()
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())


def test_plans_are_edited_as_json():
    net = wide(8, 8)
    data = json.loads(plan(net, IMAGE, ratio=0.5).to_json())
    data["groups"]["3"] = [1, 2]
    decided = Plan.from_json(json.dumps(data), net, IMAGE)
    assert decided.layers[1]["after"] == 2
    assert decided.verify() < 1e-5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a pruning plan"),
        ("[1]", "not a pruning plan"),
        ('{"format": 2, "groups": {}}', "format 2"),
        ('{"format": 1, "groups": {"9": [0]}}', "no group '9'"),
        ('{"format": 1, "groups": {"0": []}}', "at least one"),
        ('{"format": 1, "groups": {"0": [8]}}', "0 to 7"),
        ('{"format": 1, "groups": {"0": [true]}}', "0 to 7"),
        (
            '{"format": 1, "groups": {"0": {"channels": 9, "keep": [1]}}}',
            "9 channels in the plan, 8 in the model",
        ),
    ],
)
def test_damaged_plans_are_refused(text, message):
    with pytest.raises(ArtifactError, match=message):
        Plan.from_json(text, wide(8), IMAGE)


def test_layers_of_a_transposed_convolution_are_its_outputs():
    net, image = made("UNet")
    rows = {row["name"]: row for row in plan(net, image, ratio=0.5, scope="layer").layers}
    assert (rows["up"]["before"], rows["up"]["after"]) == (5, 2)


def test_names_of_criteria_are_functions():
    assert callable(criteria.l1)
    assert all(
        getattr(criteria, name) is criteria.registry.get(name).build for name in criteria.registry.names()
    )
    assert len(criteria.registry.names()) == 18
    assert all(criteria.registry.get(name).summary for name in criteria.registry.names())


def test_a_quantized_model_is_not_pruned_and_says_what_to_do():
    quantized = lz.quantize.quantize(wide(8), IMAGE, [IMAGE]).model
    with pytest.raises(GraphError, match="before it is quantized"):
        plan(quantized, IMAGE, ratio=0.5)


def test_weights_that_are_computed_are_told_with_the_mend():
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3)), nn.Conv2d(8, 4, 3))
    nn.utils.parametrizations.weight_norm(net[1])
    with pytest.raises(GraphError, match=r"weights of 0, 1 are computed .*remove_parametrizations"):
        plan(net, IMAGE, ratio=0.5)
    for layer in net:
        nn.utils.parametrize.remove_parametrizations(layer, "weight")
    assert plan(net, IMAGE, ratio=0.5).apply()[0].out_channels == 4
