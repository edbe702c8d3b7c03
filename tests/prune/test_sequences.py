"""Transformers and recurrent nets: every removal is exact, flagged where statistics run over what is left."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from net_parts import random_keeps
from sequence_nets import NETS, TOKENS, WIDTH, made
from torch import nn

from lianzhi.errors import GraphError, RecipeError
from lianzhi.graph import capture, channel_groups, macs
from lianzhi.graph.groups import layer_of
from lianzhi.graph.rules import OUT
from lianzhi.prune import Plan, plan

EXACT = 1e-5
# every layer whose output can shrink, by the kind of its group
KINDS = {
    "Attention": {"heads": 4, "hidden": 12},
    "Fused": {"heads": 4, "hidden": 12},
    "Packed": {"heads": 4, "hidden": 12},
    "Grouped": {"heads": 2, "hidden": 12},
    "NativeGrouped": {"heads": 2, "hidden": 12},
    "Rotary": {"heads": 4, "hidden": 12},
    "Biased": {"heads": 4, "hidden": 12},
    "Einsum": {"heads": 4, "hidden": 12},
    "Batched": {"heads": 4, "hidden": 12, "ffn": 7},
    "MultiHead": {"heads": 4, "hidden": 12},
    "Encoder": {"heads": 4, "hidden": 12, "ffn": 9},
    "Embedded": {"hidden": 12, "ffn": 9},
}


@functools.cache
def captured(name):
    net, x = made(name)
    graph = capture(net, x)
    return Plan(graph, channel_groups(graph), {})


@pytest.mark.parametrize(("name", "expected"), KINDS.items())
def test_heads_hidden_and_ffn_are_found_and_named(name, expected):
    assert {group.kind: len(group) for group in captured(name).groups.groups} == expected


@pytest.mark.parametrize("name", NETS)
def test_every_single_removal_is_exact(name):
    decided = captured(name)
    for group in decided.groups.groups:
        for unit in {0, len(group) - 1} if len(group) > 1 else ():
            keep = torch.ones(len(group), dtype=torch.bool)
            keep[unit] = False
            decided.keeps = {group.name: keep}
            assert decided.verify(seed=unit) < EXACT, (group.name, unit)


@pytest.mark.parametrize("share", [0.3, 0.5])
@pytest.mark.parametrize("name", NETS)
def test_random_removals_are_exact_and_train(name, share):
    decided = captured(name)
    decided.keeps = random_keeps(decided, 1, share)
    assert decided.verify() < EXACT
    small = decided.apply()
    assert macs(capture(small, made(name)[1])) == decided.count("macs")
    assert sum(p.numel() for p in small.parameters()) == decided.count("parameters")
    small.train()
    small(torch.randn(3, TOKENS, WIDTH)).square().sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())


@pytest.mark.parametrize("name", ["Attention", "Grouped", "Embedded", "Recurrent", "Norms"])
def test_the_proof_sees_rows_that_are_sliced_at_the_wrong_index(name):
    """Shift the labels of one producer by one unit: sizes still fit, the result is wrong, and the proof says so."""
    decided = copy.copy(captured(name))
    groups = decided.groups
    group, slot = next(
        (group, slot)
        for group in groups.groups
        for slot in group.slots(OUT)
        if len(group) > 1
        and "head" not in slot.tensor
        and (group.kind != "hidden" or len(group.slots(OUT)) > 1)
    )
    of = groups.components.of.clone()
    labels = groups.flow.labels.slots[slot]
    of[labels] = of[labels].roll(len(labels) // len(group) if group.kind == "heads" else 1)
    components = type(groups.components)(of, groups.components.reasons)
    decided.groups = type(groups)(groups.groups, groups.frozen, components, groups.flow, groups.aliases)
    keep = torch.ones(len(group), dtype=torch.bool)
    keep[0] = False
    decided.keeps = {group.name: keep}
    assert decided.verify() > 1e-3


def test_flags_say_which_statistics_change():
    flags = {group.name: group.flags for group in captured("Embedded").groups.groups}
    assert flags["up"] == ()
    assert any("layer_norm" in flag for flag in flags["output"])  # tied to the words
    assert any("rms_norm" in flag for flag in flags["output"])
    norms = captured("Norms").groups.groups
    assert {flag.split()[0] for group in norms for flag in group.flags} >= {
        "softmax",
        "mean",
        "var",
        "GroupNorm",
    }


def test_many_groups_of_a_groupnorm_go_whole_and_are_not_flagged():
    found = next(group for group in captured("Norms").groups.groups if "d" in group.layers())
    assert len(found) == 6
    assert not any("GroupNorm" in flag for flag in found.flags)


def test_a_single_head_keeps_its_old_scale():
    decided = captured("Single")
    assert {group.kind for group in decided.groups.groups} >= {"head_dim", "hidden"}
    decided.keeps = {
        g.name: torch.arange(len(g)) % 2 == 0 for g in decided.groups.groups if g.kind == "head_dim"
    }
    assert decided.verify() < EXACT
    small = decided.apply()
    assert decided.result_kind == "graph"  # the module divides by the root of the size that it finds
    assert any(node.kwargs.get("scale") == 12**-0.5 or 12**-0.5 in node.args for node in small.graph.nodes)


@pytest.mark.parametrize(
    ("name", "kind"), [("Attention", "plain"), ("Embedded", "plain"), ("MultiHead", "graph")]
)
def test_the_plain_module_is_returned_where_it_can_be(name, kind):
    decided = captured(name)
    decided.keeps = random_keeps(decided, 2, 0.5)
    decided.apply()
    assert decided.result_kind == kind
    assert bool(decided.result_reason) == (kind == "graph")


def test_recurrent_layers_know_their_new_sizes():
    decided = captured("Recurrent")
    decided.keeps = random_keeps(decided, 1, 0.5)
    small = decided.apply()
    assert decided.result_kind == "plain"
    assert small.lstm.hidden_size == small.lstm.weight_hh_l1_reverse.shape[1] < 8
    assert small.gru.input_size == 2 * small.lstm.hidden_size


class Cross(nn.Module):
    """Queries of its own read a sequence: the projections are rows of one parameter (nn.MultiheadAttention)."""

    def __init__(self):
        super().__init__()
        self.queries, self.enter = nn.Parameter(torch.randn(1, 3, 8)), nn.Linear(WIDTH, 8)
        self.attention, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)
        self.last = nn.Linear(8, 2)

    def forward(self, x):
        x, queries = self.enter(x), self.queries.expand(x.shape[0], -1, -1)
        read, _ = self.attention(queries, x, x, need_weights=False)
        return self.last(self.norm(queries + read))


@pytest.mark.parametrize("inner", [False, True])
def test_cross_attention_of_packed_projections(inner):
    net, x = Cross().eval(), torch.randn(2, TOKENS, WIDTH)
    graph = capture(net, x)
    decided = Plan(graph, channel_groups(graph, inner=inner), {})
    kinds = {group.kind: len(group) for group in decided.groups.groups}
    assert kinds == ({"hidden": 8, "head_dim": 4} if inner else {"hidden": 8, "heads": 2})
    assert [name for name, _ in decided.unprunable] == ["last"]
    for group in decided.groups.groups:
        for unit in range(len(group)):
            keep = torch.ones(len(group), dtype=torch.bool)
            keep[unit] = False
            decided.keeps = {group.name: keep}
            assert decided.verify() < EXACT, (group.name, unit)
    assert decided.apply()(x).shape == (2, 3, 2)


def test_a_recurrent_layer_with_a_projection_keeps_its_sizes():
    class Projected(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(WIDTH, 8, proj_size=4, batch_first=True)
            self.wide, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.last(self.wide(self.lstm(x)[0]).relu())

    net = Projected()
    decided = plan(net, torch.randn(2, TOKENS, WIDTH), ratio=0.5)
    small = decided.apply()
    assert decided.result_kind == "plain"
    assert (small.lstm.hidden_size, small.lstm.proj_size, small.wide.out_features) == (8, 4, 3)


def test_tied_weights_stay_tied_and_state_and_flags_follow():
    net, x = made("Embedded")
    net.places.weight.requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad])
    net(x).sum().backward()
    optimizer.step()
    small = plan(net, x, ratio=0.5, scope="layer").apply(optimizer=optimizer)
    assert small.output.weight is small.words.weight
    assert not small.places.weight.requires_grad
    state = optimizer.state[small.words.weight]["exp_avg"]
    assert state.shape == small.words.weight.shape == (11, 6)


@pytest.mark.parametrize("kinds", ["heads", "ffn", "hidden", ["heads", "ffn"]])
def test_granularity_touches_nothing_else(kinds):
    net, x = made("Encoder")
    decided = plan(net, x, ratio=0.5, granularity=kinds, scope="layer")
    wanted = {kinds} if isinstance(kinds, str) else set(kinds)
    assert {group.kind for group in decided.groups.groups} == wanted
    assert decided.verify() < EXACT
    shrunk = {row["name"] for row in decided.layers if row["after"] < row["before"]}
    assert shrunk <= {layer_of(slot) for group in decided.groups.groups for slot in group.slots(OUT)}


def test_dimensions_inside_heads_go_in_every_head_and_keep_the_scale():
    net, x = made("Fused")
    decided = plan(net, x, ratio=0.4, granularity="head_dim", scope="layer")
    assert {group.kind for group in decided.groups.groups} == {"head_dim"}
    assert decided.verify() < EXACT
    small = decided.apply()
    assert small(x).shape == (1, 5)
    again = Plan.from_json(decided.to_json(), net, x)
    assert again.kept == decided.kept
    assert torch.equal(again.apply()(x), small(x))


@pytest.mark.parametrize("name", ["Attention", "Fused", "Packed", "Biased", "Einsum", "Rotary", "Grouped"])
def test_every_projection_of_attention_loses_dimensions_inside_its_heads(name):
    """Values as well as queries and keys; also where a bias a head is added to the scores."""
    net, x = made(name)
    decided = plan(net, x, ratio=0.4, granularity="head_dim", scope="layer")
    assert decided.verify() < EXACT
    layers = {layer.rpartition(".")[2] for group in decided.groups.groups for layer in group.layers()}
    assert layers == ({"qkv"} if hasattr(net, "qkv") else {"q", "k", "v"})


def test_a_granularity_that_is_not_there_is_refused():
    net, x = made("Recurrent")
    with pytest.raises(GraphError, match="no groups of granularity heads"):
        plan(net, x, ratio=0.5, granularity="heads")
    with pytest.raises(RecipeError, match="did you mean 'heads'"):
        plan(net, x, ratio=0.5, granularity="head")
    with pytest.raises(RecipeError, match="stands alone"):
        plan(net, x, ratio=0.5, granularity=["layers", "ffn"])


class Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(WIDTH, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.c(self.b(self.a(x).sort(-1).values))


def test_what_has_no_rule_freezes_and_says_so():
    decided = plan(Unknown(), torch.randn(1, TOKENS, WIDTH), ratio=0.5)
    assert [group.name for group in decided.groups.groups] == ["b"]
    assert ("a", "there is no rule for sort") in decided.unprunable


def test_layers_that_an_op_without_a_rule_reads_are_told():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(WIDTH, 8), nn.Bilinear(8, 8, 8, bias=False), nn.Linear(8, 3)

        def forward(self, x):
            x = self.a(x)
            return self.c(self.b(x, x))

    with pytest.raises(GraphError, match="b: there is no rule for bilinear"):
        plan(Both(), torch.randn(1, WIDTH), ratio=0.5)
