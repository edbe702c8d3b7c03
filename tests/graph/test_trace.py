"""One capture: the same function, the same tensors, the batch free, and errors that name the line."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lianzhi.errors import GraphError
from lianzhi.graph import TracedModule, capture


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)
        self.register_buffer("offset", torch.ones(4), persistent=False)
        self.unused = nn.Linear(2, 2)
        self.tied = nn.Linear(4, 2)
        self.tied.weight = self.head.weight

    def forward(self, x):
        x = F.dropout(F.relu(self.norm(self.conv(x))), 0.5, self.training)
        x = x.mean((2, 3)) + self.offset
        return self.head(x) + self.tied(x)


@pytest.fixture
def small():
    model = Small()
    model.conv.weight.requires_grad_(False)
    with torch.no_grad():
        model.norm.running_mean.normal_()
    return model


def test_the_graph_computes_what_the_model_does_for_any_batch(small):
    graph = capture(small, torch.zeros(1, 3, 8, 8))
    assert isinstance(graph.module, TracedModule)
    assert graph.dynamic_batch
    small.eval()
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 8, 8)
        assert torch.equal(graph.module(x), small(x))


def test_tensors_are_the_models_own(small):
    module = capture(small, torch.zeros(1, 3, 8, 8)).module
    assert module.state_dict().keys() == small.state_dict().keys()
    own = dict(small.named_parameters(remove_duplicate=False))
    traced = dict(module.named_parameters(remove_duplicate=False))
    assert traced.keys() == own.keys()
    assert all(traced[name] is own[name] for name in own)
    assert dict(module.named_buffers()).keys() == dict(small.named_buffers()).keys()
    assert [p.requires_grad for p in traced.values()] == [p.requires_grad for p in own.values()]


def test_train_and_eval_switch_batch_norm_and_dropout(small):
    module = capture(small, torch.zeros(1, 3, 8, 8)).module
    x = torch.randn(16, 3, 8, 8)
    reference = copy.deepcopy(small).train()
    module = copy.deepcopy(module).train()
    torch.manual_seed(1)
    expected = reference(x)
    torch.manual_seed(1)
    assert torch.allclose(module(x), expected, atol=1e-6)
    assert torch.equal(module.get_buffer("norm.running_mean"), reference.norm.running_mean)
    module.eval()
    reference.eval()
    assert torch.equal(module(x), reference(x))
    assert not any(child.training for child in module.modules())


def test_the_model_is_left_as_it_is(small):
    small.train()
    small.norm.eval()
    before = copy.deepcopy(small.state_dict())
    capture(small, torch.randn(1, 3, 8, 8))
    assert small.training
    assert not small.norm.training
    after = small.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in small.parameters())


def test_a_copy_is_independent_and_keeps_ties_and_mode(small):
    module = capture(small, torch.zeros(1, 3, 8, 8)).module
    module.train()
    copied = copy.deepcopy(module)
    assert copied.training
    assert copied.get_parameter("head.weight") is copied.get_parameter("tied.weight")
    with torch.no_grad():
        copied.get_parameter("head.weight").zero_()
    assert module.get_parameter("head.weight").abs().sum() > 0
    copied.eval()
    module.eval()
    copied.load_state_dict(module.state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(copied(x), module(x))


def test_a_graph_is_captured_again(small):
    first = capture(small, torch.zeros(1, 3, 8, 8)).module.train()
    second = capture(first, torch.zeros(1, 3, 8, 8))
    assert first.training
    assert second.module.state_dict().keys() == small.state_dict().keys()
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(second.module(x), small.eval()(x))


class Several(nn.Module):
    def forward(self, image, *, mask, scale=None):
        return {"image": image * mask, "sum": (image.sum(), mask)}


def test_inputs_and_outputs_keep_their_structure():
    graph = capture(Several(), {"image": torch.ones(1, 3), "mask": torch.ones(1, 3)})
    x, m = torch.randn(4, 3), torch.randn(4, 3)
    found = graph.module(image=x, mask=m)
    assert torch.equal(found["image"], x * m)
    assert torch.equal(found["sum"][0], x.sum())


class Variadic(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, first, *others, **named):
        return self.linear(first + sum(others) + sum(named.values()))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("names", [(), ("bias", "more")])
def test_arguments_without_a_name(count, names):
    net = Variadic()
    given = tuple(torch.randn(1, 4) for _ in range(count))
    named = {name: torch.randn(1, 4) for name in names}
    if names:
        given = given[:1]
        graph = capture(net, {"first": given[0], **named})
        assert torch.equal(graph.module(first=given[0], **named), net(*given, **named))
        return
    graph = capture(net, given)
    assert graph.dynamic_batch
    many = tuple(torch.randn(5, 4) for _ in range(count))
    assert torch.equal(graph.module(*many), net(*many))


def test_a_fixed_batch_is_traced_as_given():
    class Fixed(nn.Module):
        def __init__(self, batch):
            super().__init__()
            self.batch = batch

        def forward(self, x):
            return x.reshape(self.batch, 3)

    for batch in (1, 2, 4):
        inputs = torch.randn(batch, 3)
        graph = capture(Fixed(batch), inputs)
        assert not graph.dynamic_batch
        assert torch.equal(graph.module(inputs), inputs)
        assert torch.export.export(Fixed(batch), (inputs,))  # the user's tensor bears no marks of ours
    graph = capture(nn.Linear(3, 2), torch.zeros(4, 3), dynamic_batch=False)
    assert graph.args[0].shape[0] == 4
    assert not graph.dynamic_batch


class DecidesByValues(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


class DecidesInside(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = DecidesByValues()

    def forward(self, x):
        return self.inner(x + 1)


def test_control_flow_by_values_is_refused_and_the_line_is_named():
    line = inspect.getsourcelines(DecidesByValues.forward)[1] + 1
    with pytest.raises(GraphError) as caught:
        capture(DecidesInside(), torch.ones(1, 3))
    message = str(caught.value)
    assert f"test_trace.py:{line}" in message
    assert "if x.sum() > 0" in message
    assert "torch.where" in message


def test_inputs_that_do_not_fit_are_refused_with_the_line():
    with pytest.raises(GraphError, match=r"test_trace\.py"):
        capture(Small(), torch.zeros(1, 5, 8, 8))
    with pytest.raises(GraphError, match="example_inputs must be a tensor"):
        capture(Small(), "picture")


def test_the_mode_is_restored_when_capture_fails():
    model = DecidesInside().train()
    with pytest.raises(GraphError):
        capture(model, torch.ones(1, 3))
    assert model.training
    assert model.inner.training
