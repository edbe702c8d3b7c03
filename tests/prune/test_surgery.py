"""What survives surgery: the original, hooks, types, modes, gradients, optimizers; and a second surgery."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from coupled_nets import made
from torch import nn

from lianzhi.errors import GraphError
from lianzhi.graph import TracedModule, capture
from lianzhi.prune import plan


def values(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", ["Residual", "Flatten"])
def test_a_copy_leaves_the_original_alone(name):
    net, image = made(name)
    before, output = values(net), net(image)
    decided = plan(net, image, ratio=0.5)
    small = decided.apply()
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(before[key], tensor) for key, tensor in net.state_dict().items())
    assert torch.equal(net(image), output)


def test_in_place_changes_the_model_itself():
    net, image = made("Residual")
    decided = plan(net, image, ratio=0.5)
    expected = decided.apply()
    small = decided.apply(in_place=True)
    assert small is net
    assert decided.result_kind == "plain"
    assert torch.equal(net(image), expected(image))


def test_in_place_a_model_that_cannot_be_kept_is_not_broken():
    net, image = made("OptionA")
    output = net(image)
    decided = plan(net, image, ratio=0.5, scope="layer")
    small = decided.apply(in_place=True)
    assert decided.result_kind == "graph"
    assert isinstance(small, TracedModule)
    assert torch.equal(net(image), output)


def test_modes_types_gradients_and_hooks_survive():
    net, image = made("Residual")
    net = net.double()
    image = image.double()
    calls = []
    net.stem.register_forward_hook(lambda *_: calls.append(1))
    net.a.weight.requires_grad_(False)
    net.train()
    net.norm.eval()
    small = plan(net, image, ratio=0.5).apply()
    assert small.training
    assert not small.norm.training
    assert small.a.weight.dtype == torch.float64
    assert not small.a.weight.requires_grad
    assert small.b.weight.requires_grad
    calls.clear()
    small(image)
    assert calls == [1]
    assert type(small) is type(net)


def test_half_precision():
    net, image = made("Residual")
    decided = plan(net.bfloat16(), image.bfloat16(), ratio=0.5)
    small = decided.apply()
    assert {parameter.dtype for parameter in small.parameters()} == {torch.bfloat16}
    assert decided.result_kind == "plain"


@pytest.mark.parametrize("name", ["Residual", "OptionA"])
@pytest.mark.parametrize("in_place", [False, True])
def test_an_optimizer_goes_on_where_it_was(name, in_place):
    net, image = made(name)
    optimizer = torch.optim.AdamW(
        [
            {"params": net.head.parameters(), "lr": 0.1},
            {"params": [p for n, p in net.named_parameters() if "head" not in n]},
        ]
    )
    net(image).square().sum().backward()
    optimizer.step()
    moments = {n: optimizer.state[p]["exp_avg"].clone() for n, p in net.named_parameters()}
    decided = plan(net, image, ratio=0.5)
    keep = decided.groups.keep(decided.removed())
    small = decided.apply(in_place=in_place, optimizer=optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 1e-3]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in small.parameters()}
    assert set(optimizer.state) == set(small.parameters())
    for key, parameter in small.named_parameters():
        expected = moments[key]
        for axis, indices in keep.get(key, {}).items():
            expected = expected.index_select(axis, indices)
        assert torch.equal(optimizer.state[parameter]["exp_avg"], expected)
        assert optimizer.state[parameter]["step"] == 1
    optimizer.zero_grad()
    before = values(small)
    small(image).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(before[key], parameter) for key, parameter in small.named_parameters())


def test_optimizer_state_that_cannot_be_sliced_is_refused_before_anything_changes():
    net, image = made("Residual")
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    optimizer.state[net.stem.weight]["rows"] = torch.zeros(3)
    held = list(net.parameters())
    with pytest.raises(GraphError, match=r"'rows' of 'stem\.weight'"):
        plan(net, image, ratio=0.5).apply(optimizer=optimizer)
    after = optimizer.param_groups[0]["params"]
    assert len(after) == len(held)
    assert all(one is other for one, other in zip(after, held, strict=True))


@pytest.mark.parametrize("name", ["Residual", "OptionA", "ZerosBeside", "Scaled"])
def test_a_pruned_model_is_pruned_again(name):
    net, image = made(name)
    once = plan(net, image, ratio=0.3).apply()
    again = plan(once, image, ratio=0.3)
    assert again.verify() < 1e-5
    twice = again.apply()
    assert twice(torch.randn(3, 3, 12, 12)).shape == (3, 5)
    assert sum(p.numel() for p in twice.parameters()) < sum(p.numel() for p in once.parameters())
    assert twice.state_dict().keys() == net.state_dict().keys()


def test_a_graph_result_trains_copies_and_reloads():
    net, image = made("OptionA")
    small = plan(net, image, ratio=0.5).apply().train()
    assert small.training
    copied = copy.deepcopy(small)
    copied.load_state_dict(small.state_dict())
    assert torch.equal(copied(image), small(image))
    assert small.state_dict().keys() == net.state_dict().keys()
    optimizer = torch.optim.SGD(small.parameters(), 0.01)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = (small(image) - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


class Helped(nn.Module):
    """A head that runs in training only, and so is not in the graph."""

    def __init__(self):
        super().__init__()
        self.stem, self.head, self.helper = nn.Conv2d(3, 8, 3), nn.Linear(8, 5), nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.stem(x)).mean((2, 3))
        return (self.head(x), self.helper(x)) if self.training else self.head(x)


def test_layers_that_run_in_training_only_are_not_left_dangling():
    net = Helped()
    decided = plan(net, torch.zeros(1, 3, 12, 12), ratio=0.5)
    small = decided.apply()
    assert decided.result_kind == "graph"
    assert "helper" in "".join(name for name, _ in net.named_children())
    assert small.train()(torch.zeros(2, 3, 12, 12)).shape == (2, 5)


class Sized(nn.Module):
    """Sizes are attributes that forward reads, so that surgery can change them."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 10, 1), nn.Linear(10 * 4, 2)
        self.before, self.after, self.flat, self.parts = 2, 2, 40, (4, 6)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = self.second(x) + F.pad(x, (0, 0, 0, 0, self.before, self.after))
        left, right = x.split(self.parts, 1)
        return self.head(torch.cat([right, left], 1).reshape(-1, self.flat))


def test_attributes_that_forward_reads_are_changed_with_it():
    torch.manual_seed(1)
    net = Sized()
    decided = plan(net, torch.zeros(1, 3, 2, 2), ratio=0.4, criterion="random")
    small = decided.apply()
    assert decided.result_kind == "plain", decided.result_reason
    assert small.flat == 4 * sum(small.parts)
    assert small.flat < 40
    assert (net.before, net.after, net.flat, net.parts) == (2, 2, 40, (4, 6))


def test_example_inputs_of_zeros_do_not_hide_a_wrong_module():
    """With zeros in, a module whose chunks come out uneven would seem to agree."""
    net, image = made("Shuffle")
    decided = plan(net, torch.zeros_like(image), ratio=0.4, criterion="random")
    small = decided.apply()
    truth = capture(small, image).module
    x = torch.randn(2, 3, 12, 12)
    assert torch.allclose(small.eval()(x), truth(x), atol=1e-6)
    assert decided.verify() < 1e-5


def test_optimizer_state_that_cannot_be_sliced_leaves_a_model_that_is_pruned_in_place_alone():
    net, image = made("Residual")
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    optimizer.state[net.stem.weight]["rows"] = torch.zeros(3)
    held = list(net.parameters())
    with pytest.raises(GraphError, match=r"'rows' of 'stem\.weight'"):
        plan(net, image, ratio=0.5).apply(in_place=True, optimizer=optimizer)
    assert all(one is other for one, other in zip(net.parameters(), held, strict=True))


def test_a_plan_is_applied_in_place_once():
    net, image = made("Residual")
    decided = plan(net, image, ratio=0.5)
    decided.apply(in_place=True)
    before = values(net)
    for in_place in (True, False):
        with pytest.raises(GraphError, match=r"has shape .* and had .* when the plan was made"):
            decided.apply(in_place=in_place)
    assert all(torch.equal(before[key], tensor) for key, tensor in net.state_dict().items())


class HalvesApart(nn.Module):
    """One half of the channels is pooled by the largest value, the other by the mean: no pool runs on none."""

    def __init__(self):
        super().__init__()
        self.stem, self.mix, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        x = torch.cat([F.max_pool2d(x[:, :4], 2), F.avg_pool2d(x[:, 4:], 2)], 1)
        return self.last(F.relu(self.mix(x)))


class SplitApart(HalvesApart):
    def forward(self, x):
        one, two = self.stem(x).split([3, 5], 1)
        return self.last(F.relu(self.mix(torch.cat([F.max_pool2d(one, 2), F.avg_pool2d(two, 2)], 1))))


@pytest.mark.parametrize(("kind", "cut"), [(HalvesApart, 4), (SplitApart, 3)])
def test_a_part_that_is_cut_out_is_never_left_empty(kind, cut):
    net, image = kind(), torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        net.stem.weight[:cut] *= 1e-3  # the whole first part is the weakest
    decided = plan(net, image, ratio=0.5, max_layer_ratio=1.0, ignore="mix")
    assert decided.verify() < 1e-5
    assert decided.apply()(image).shape == net(image).shape
    stem = next(row for row in decided.layers if row["name"] == "stem")
    assert stem["after"] < stem["before"]


def test_weights_that_a_hook_computes_stay_so():
    with pytest.warns(FutureWarning, match="weight_norm"):
        normed = nn.utils.weight_norm(nn.Conv2d(8, 8, 3))
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), normed, nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1)
    )
    image = torch.randn(1, 3, 8, 8)
    net(image).sum().backward()
    decided = plan(net, image, ratio=0.5)
    assert ("2", "there is no rule for _weight_norm") in decided.unprunable
    assert decided.verify() < 1e-5
    small = decided.apply()
    small.train()(image).sum().backward()
    assert small[3].out_channels < 6
    assert small[2].weight_g.grad is not None
