"""Whole residual blocks go: by a shorter list or by identities, those that change little first."""

from __future__ import annotations

import json

import pytest
import torch
from sequence_nets import TOKENS, WIDTH
from torch import nn

from lianzhi.errors import ArtifactError, GraphError, RecipeError
from lianzhi.prune import Plan, plan, plan_layers


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return x + self.linear(self.norm(x))


class Deep(nn.Module):
    def __init__(self, counts=False):
        super().__init__()
        self.counts = counts
        self.blocks = nn.ModuleList(Block() for _ in range(4))
        self.plain = nn.Sequential(
            nn.Sequential(nn.Linear(WIDTH, WIDTH)), nn.Sequential(nn.Linear(WIDTH, WIDTH))
        )

    def forward(self, x):
        for index in range(4) if self.counts else range(len(self.blocks)):
            x = self.blocks[index](x)
        return self.plain(x)


@pytest.mark.parametrize("counts", [False, True])
def test_whole_blocks_go_by_a_shorter_list_or_by_identities(counts):
    torch.manual_seed(0)
    net, x = Deep(counts).eval(), torch.randn(2, TOKENS, WIDTH)
    decided = plan(net, x, ratio=0.5, granularity="layers")
    assert list(decided.blocks) == [f"blocks.{index}" for index in range(4)]  # `plain` is not residual
    smallest = sorted(range(4), key=lambda i: float(net.blocks[i].linear.weight.detach().abs().mean()))[:2]
    assert decided.removed == [f"blocks.{index}" for index in sorted(smallest)]
    small = decided.apply()
    expected = x
    for index in range(4):
        expected = expected if index in smallest else net.blocks[index](expected)
    assert torch.equal(small(x), net.plain(expected))
    assert decided.verify() < 1e-5
    assert len(net.blocks) == 4
    assert (len(small.blocks) == 2) == (not counts)
    assert bool(decided.result_reason) == counts


def test_blocks_that_change_little_go_first():
    torch.manual_seed(0)
    net = Deep().eval()
    with torch.no_grad():
        net.blocks[2].linear.weight.mul_(1e-3)
        net.blocks[2].linear.bias.zero_()
    assert plan_layers(net, torch.randn(2, TOKENS, WIDTH), ratio=0.25).removed == ["blocks.2"]
    assert plan_layers(net, torch.randn(2, TOKENS, WIDTH), ratio=0.25, criterion="position").removed == [
        "blocks.3"
    ]


def test_influence_is_a_mean_over_calibration_samples():
    torch.manual_seed(0)
    net, batches = Deep().eval(), [torch.randn(3, TOKENS, WIDTH), torch.randn(1, TOKENS, WIDTH)]
    found = plan_layers(net, batches[0], ratio=0.5, calibration=batches).blocks
    x = torch.cat(batches)
    for index, (name, score) in enumerate(found.items()):
        after = net.blocks[index](x).detach()
        assert name == f"blocks.{index}"
        assert score == pytest.approx(float(1 - torch.cosine_similarity(x, after, -1).mean()), abs=1e-6)
        x = after


def test_a_depth_plan_counts_and_survives_json():
    torch.manual_seed(0)
    net, x = Deep().eval(), torch.randn(1, TOKENS, WIDTH)
    decided = plan(net, x, ratio=0.5, granularity="layers")
    again = Plan.from_json(decided.to_json(), net, x)
    assert (again.removed, again.blocks) == (decided.removed, decided.blocks)
    assert torch.equal(again.apply()(x), decided.apply()(x))
    block = sum(parameter.numel() for parameter in net.blocks[0].parameters())
    assert decided.count("parameters", {}) - decided.count("parameters") == 2 * block
    assert decided.count("bytes", {}) == 4 * decided.count("parameters", {})
    assert decided.count("macs", {}) - decided.count("macs") == 2 * WIDTH * WIDTH * TOKENS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": {"stem": 1.0}}, "are not the model's"),
        ({"removed": ["blocks.0", "blocks.1", "blocks.2", "blocks.3"]}, "leaves at least one"),
        ({"removed": ["head"]}, "names some of its blocks"),
        ({"removed": 3}, "names some of its blocks"),
        ({"removed": ["blocks.0", "blocks.0"]}, "each once"),
        ({"blocks": {"blocks.1": 1.0}, "removed": ["blocks.0"]}, "names some of its blocks"),
        ({"blocks": {"blocks.0": "a lot"}}, "score"),
        ({"format": 9}, "format 9"),
        ({"notes": 1}, "not a list"),
    ],
)
def test_a_damaged_depth_plan_is_refused(change, message):
    net, x = Deep().eval(), torch.randn(1, TOKENS, WIDTH)
    data = json.loads(plan(net, x, ratio=0.5, granularity="layers").to_json())
    with pytest.raises(ArtifactError, match=message):
        Plan.from_json(json.dumps({**data, **change}), net, x)


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
def test_an_optimizer_follows_a_shorter_model(counts, in_place):
    net, x = Deep(counts), torch.randn(2, TOKENS, WIDTH)
    optimizer = torch.optim.AdamW([{"params": [p], "lr": 1e-3} for p in net.parameters()])
    net(x).square().sum().backward()
    optimizer.step()
    state = {name: optimizer.state[p]["exp_avg"].clone() for name, p in net.named_parameters()}
    decided = plan_layers(net, x, ratio=0.5, criterion="position")
    assert decided.removed == ["blocks.2", "blocks.3"]
    small = decided.apply(in_place=in_place, optimizer=optimizer)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in small.parameters()}
    assert set(optimizer.state) == set(held)
    for name, p in small.named_parameters():
        assert torch.equal(optimizer.state[p]["exp_avg"], state[name])


def test_blocks_that_are_ignored_stay():
    net, x = Deep().eval(), torch.randn(1, TOKENS, WIDTH)
    options = {"ratio": 0.75, "granularity": "layers", "criterion": "position"}
    assert plan(net, x, **options, ignore="blocks.3").removed == ["blocks.1", "blocks.2"]
    assert plan(net, x, **options, ignore=["blocks.[123].linear"]).removed == []
    with pytest.raises(GraphError, match="all blocks that could go are ignored"):
        plan(net, x, **options, ignore=nn.LayerNorm)
    with pytest.raises(RecipeError, match="matches no layer"):
        plan(net, x, **options, ignore="block.*")
    with pytest.raises(RecipeError, match="did you mean 'position'"):
        plan(net, x, ratio=0.5, granularity="layers", criterion="positon")
    with pytest.raises(RecipeError, match="no options but a seed"):
        plan(net, x, ratio=0.5, granularity="layers", criterion_options={"per_weight": True})
