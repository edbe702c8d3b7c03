"""What is captured inside models: equal to what the library itself returns, and nothing is left behind."""

from __future__ import annotations

import copy

import pytest
import torch
from small_transformers import KINDS, bert, inputs
from torch import nn
from torch.nn import functional

import lianzhi as lz
from lianzhi.distill.capture import capture
from lianzhi.distill.transformer import attention_of, embeddings_of, layers_of
from lianzhi.errors import GraphError

pytest.importorskip("transformers")


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_are_the_librarys(kind):
    model, data = bert(kind=kind), inputs(kind)
    layers, embeddings = layers_of(model), embeddings_of(model)
    with capture(model, [embeddings, *layers]) as seen, torch.no_grad():
        model(**data)
    states = model(**data, output_hidden_states=True).hidden_states
    assert len(states) == 3
    for name, state in zip([embeddings, *layers], states, strict=True):
        torch.testing.assert_close(seen[name], state)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_inside_of_the_librarys_attention(kind):
    """Softmax of masked scores equals the probabilities of the eager attention, of which the scores are hidden."""
    model, data = bert(kind=kind), inputs(kind)
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    layers = layers_of(model)
    with capture(model, attention=layers) as seen, torch.no_grad():
        model(**data)
    probabilities = eager(**data, output_attentions=True).attentions
    for layer, wanted in zip(layers, probabilities, strict=True):
        scores = seen.scores(layer)
        assert scores.shape == wanted.shape
        if "attention_mask" in data:
            scores = scores.masked_fill(data["attention_mask"][:, None, None] == 0, -1e9)
        torch.testing.assert_close(scores.softmax(-1), wanted, atol=1e-6, rtol=1e-5)
        assert (wanted.std(-1) > 0.01).any(), "all tokens attend alike: a wrong factor would not be seen"


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_right_after_heads_were_pruned(kind):
    """The library's attributes still say four heads then, and its eager attention counts two."""
    data = inputs(kind)
    model = lz.prune.plan(bert(kind=kind), data, ratio=0.5, granularity="heads", scope="layer").apply()
    assert attention_of(model, layers_of(model)[0]).heads == 2
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    with capture(model, attention=layers_of(model)[1:]) as seen, torch.no_grad():
        model(**data)
    scores = seen.scores(layers_of(model)[1])
    if "attention_mask" in data:
        scores = scores.masked_fill(data["attention_mask"][:, None, None] == 0, -1e9)
    wanted = eager(**data, output_attentions=True).attentions[1]
    torch.testing.assert_close(scores.softmax(-1), wanted, atol=1e-6, rtol=1e-5)


def test_a_factor_of_its_own_is_used():
    model, data = bert(), inputs()
    layer = layers_of(model)[0]
    with capture(model, attention=[layer]) as before, torch.no_grad():
        model(**data)
    model.get_submodule(layer).attention.self.scaling *= 3
    with capture(model, attention=[layer]) as after, torch.no_grad():
        model(**data)
    torch.testing.assert_close(after.scores(layer), 3 * before.scores(layer))


def test_values_and_scores_give_what_the_attention_gives():
    model, data = bert(), inputs()
    layer = layers_of(model)[1]
    with capture(model, [f"{layer}.attention.self"], attention=[layer]) as seen, torch.no_grad():
        model(**data)
    hidden = data["attention_mask"][:, None, None] == 0
    context = seen.scores(layer).masked_fill(hidden, -1e9).softmax(-1) @ seen.values(layer)
    torch.testing.assert_close(context.transpose(1, 2).flatten(2), seen[f"{layer}.attention.self"])
    assert seen.queries(layer).shape == seen.keys(layer).shape == (3, 4, 7, 8)


def test_the_fused_kernel_stays_on(monkeypatch):
    model, data, calls = bert(), inputs(), []
    fused = functional.scaled_dot_product_attention

    def counted(*args, **kwargs):
        calls.append(1)
        return fused(*args, **kwargs)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", counted)
    with capture(model, attention=layers_of(model)), torch.no_grad():
        model(**data)
    assert len(calls) == 2
    assert model.config._attn_implementation == "sdpa"


def test_hooks_are_gone_after_the_end_and_after_an_error():
    model, data = bert(), inputs()
    before = hooks(model)
    with capture(model, layers_of(model), attention=layers_of(model)):
        assert hooks(model) == before + 2 + 6
    assert hooks(model) == before
    with pytest.raises(ValueError, match="stop"), capture(model, layers_of(model)):
        raise ValueError("stop")
    assert hooks(model) == before
    with pytest.raises(GraphError), capture(model, layers_of(model), attention=["bert.encoder.layer.7"]):
        model(**data)
    assert hooks(model) == before


def test_gradients_flow_through_what_is_captured():
    model, data = bert(), inputs()
    layer = layers_of(model)[0]
    with capture(model, [layer], attention=[layer]) as seen:
        model(**data)
    (seen.scores(layer).square().mean() + seen[layer].square().mean()).backward()
    inside = model.get_submodule(layer)
    assert inside.attention.self.query.weight.grad.abs().sum() > 0
    assert inside.output.dense.weight.grad.abs().sum() > 0
    assert model.get_submodule(layers_of(model)[1]).output.dense.weight.grad is None


def test_a_model_inside_another():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.student = bert()

        def forward(self, **kwargs):
            return self.student(**kwargs)

    both, data = Beside(), inputs()
    layers = layers_of(both.student)
    with capture(both.student, layers) as seen, torch.no_grad():
        both(**data)
    assert seen[layers[1]].shape == (3, 7, 32)


def test_under_data_parallel_training(tmp_path):
    """DistributedDataParallel calls the inner model, whose hooks see what they see without it."""
    model, data = bert(), inputs()
    layers = layers_of(model)

    def taught(called):
        model.zero_grad()
        with capture(model, layers, attention=layers) as seen:
            logits = called(**data).logits
        loss = (
            seen[layers[1]].square().mean() + seen.scores(layers[0]).square().mean() + logits.square().sum()
        )
        loss.backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    wanted = taught(model)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        found = taught(nn.parallel.DistributedDataParallel(model))
    finally:
        torch.distributed.destroy_process_group()
    assert wanted.keys() == found.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.idle = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.shared(self.shared(x))


@pytest.mark.parametrize(
    ("names", "asked", "message"),
    [
        (["sharde"], "sharde", "Twice has no module 'sharde'; did you mean 'shared'"),
        (["shared"], "shared", "'shared' ran 2 times.*use the method kd, or an architecture without"),
        (["shared", "idle"], "idle", "'idle' did not run"),
        (["idle"], "shared", "'shared' is not captured"),
    ],
)
def test_what_cannot_be_captured_is_told(names, asked, message):
    def look():
        model = Twice()
        with capture(model, names) as seen:
            model(torch.ones(1, 3))
        return seen[asked]

    with pytest.raises(GraphError, match=message):
        look()


def test_attention_that_was_not_asked_for_is_told():
    model = bert()
    with capture(model, layers_of(model)) as seen, torch.no_grad():
        model(**inputs())
    with pytest.raises(GraphError, match=r"attention of 'bert.encoder.layer.0' is not captured"):
        seen.scores("bert.encoder.layer.0")
