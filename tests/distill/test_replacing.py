"""Module replacement: rates, draws, groups, and which modules run."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from lessons import first_batch, of_teacher_layers, setting, taught
from replaced import alike, entropy, of_blocks
from small_transformers import bert, inputs
from torch import nn

import lianzhi as lz
from lianzhi.distill.methods.block_calls import note_shared
from lianzhi.distill.methods.rates import draw, linear, spread
from lianzhi.distill.methods.replacing import Place
from lianzhi.distill.methods.successors import GroupOptions, even, make_stack, sizes_of
from lianzhi.distill.methods.teacher import Logits
from lianzhi.distill.methods.theseus import TheseusOptions, rate_of
from lianzhi.distill.transformer import layers_of
from lianzhi.errors import DataError, GraphError, RecipeError
from lianzhi.graph.shorten import shortened
from lianzhi.tasks import Batch

pytest.importorskip("transformers")


def test_a_linear_rate_is_k_t_plus_b():
    assert [linear(t, 100, start=0.3, slope=0.1) for t in (0, 1, 7, 8)] == pytest.approx([0.3, 0.4, 1, 1])
    assert linear(10, 20, start=0.3) == pytest.approx(0.65)
    assert rate_of(TheseusOptions())(0, 10) == 0.3
    assert rate_of(TheseusOptions(rate=0.6))(5, 10) == pytest.approx(0.8)
    assert [rate_of(TheseusOptions(schedule="constant"))(t, 10) for t in (0, 9)] == [0.5, 0.5]
    with pytest.raises(RecipeError, match="constant rate has none"):
        rate_of(TheseusOptions(schedule="constant", slope=0.1))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_the_mean_of_spread_rates_is_the_rate(rate, share):
    found = spread(rate, [2, 0, 1, 3], share)
    assert sum(found) / 4 == pytest.approx(rate)
    assert found[2] >= found[0] >= found[1] >= found[3]


def test_draws_are_as_likely_as_they_should_be():
    batches = torch.tensor([draw(0, number, [0.2, 0.5, 1.0]) for number in range(2000)]).double()
    for found, rate in zip(batches.mean(0).tolist(), (0.2, 0.5, 1.0), strict=True):
        assert abs(found - rate) <= 4 * math.sqrt(rate * (1 - rate) / 2000)
    assert abs(torch.corrcoef(batches[:, :2].T)[0, 1]) < 0.1
    samples = draw(3, 7, [0.5, 0.5], torch.arange(4000))
    assert all(abs(one.double().mean() - 0.5) < 0.04 for one in samples)
    assert abs(torch.corrcoef(torch.stack(samples).double())[0, 1]) < 0.1


def test_a_sample_s_draw_does_not_depend_on_the_others():
    whole = draw(0, 5, [0.4, 0.6], torch.arange(20))
    part = draw(0, 5, [0.4, 0.6], torch.arange(19, -1, -2))
    assert all(torch.equal(one.flip(0)[::2], other) for one, other in zip(whole, part, strict=True))
    assert not torch.equal(whole[0], draw(0, 6, [0.4, 0.6], torch.arange(20))[0])
    assert not torch.equal(whole[0], draw(1, 5, [0.4, 0.6], torch.arange(20))[0])


def test_groups():
    assert [even(12, 6), even(5, 2), even(7, 3), even(3, 3)] == [[2] * 6, [3, 2], [3, 2, 2], [1, 1, 1]]
    assert sizes_of(GroupOptions(compress_ratio=3), 12) == [3] * 4
    assert sizes_of(GroupOptions(compress_ratio=1.5), 6) == [2, 1, 2, 1]
    assert sizes_of(GroupOptions(groups=4), 6) == [2, 1, 2, 1]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"groups": [2, 3]}, "whose sum is 4"),
        ({"groups": [4, 0]}, "numbers from 1"),
        ({"groups": 5}, "from 1 to 4"),
        ({"groups": 2, "compress_ratio": 2}, "give one"),
        ({"init": "skip"}, "name one for each"),
        ({"init": [3, 1]}, "rising order"),
        ({"init": [0, 1]}, "rising order"),
        ({"init": "botom"}, "did you mean 'bottom'"),
    ],
)
def test_groups_that_do_not_fit(options, match):
    with pytest.raises(RecipeError, match=match):
        taught(alike(), "theseus", **options)


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({}, [1, 2]),
        ({"init": "uniform"}, [2, 4]),
        ({"init": [1, 4]}, [1, 4]),
        ({"groups": [1, 2, 1]}, [1, 2, 3]),
    ],
)
def test_successors_begin_as_layers_of_the_model(options, first):
    given = alike()
    model = taught(given, "theseus", **options).finish()
    wanted = of_teacher_layers(given.student, first)
    assert model.config.num_hidden_layers == len(first)
    assert len(layers_of(given.student)) == given.student.config.num_hidden_layers == 4
    assert model.state_dict().keys() == wanted.state_dict().keys()
    assert all(torch.equal(value, wanted.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_student_of_fewer_layers_brings_its_successors():
    given = setting()
    model = taught(given, "theseus", groups=[3, 1]).finish()
    for name, value in model.state_dict().items():
        source = given.student if of_blocks(name) else given.teacher
        assert torch.equal(value, source.state_dict()[name]), name
    with pytest.raises(RecipeError, match="has 2 layers, and 3 successors"):
        taught(given, "theseus", groups=3)
    with pytest.raises(RecipeError, match="leave 'init' out"):
        taught(given, "theseus", init="uniform")


def test_students_that_do_not_fit():
    with pytest.raises(RecipeError, match="4 layers and the predecessor 2"):
        taught(setting(bert(2), bert(4)), "theseus")
    with pytest.raises(DataError, match=r"'bert.embeddings.word_embeddings.weight' is \[30, 16\]"):
        taught(setting(student=bert(2, hidden_size=16)), "theseus")
    with pytest.raises(DataError, match=r"'classifier\.weight'"):
        taught(setting(student=bert(2, num_labels=3)), "theseus")
    given = setting()
    given.source = Logits(given.teacher, lambda: None)
    with pytest.raises(RecipeError, match="cache: false"):
        taught(given, "theseus")


def test_layers_that_depend_on_their_place_are_refused():
    class Placed(nn.Module):
        def __init__(self, place):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x, place):
            return self.linear(x) * place

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(Placed(place) for place in range(4))
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            for place, block in enumerate(self.blocks):
                x = block(x, place + 1)
            return self.head(x)

    data = lz.Task(train=[(torch.randn(4, 4), torch.arange(4) % 2)], num_classes=2)
    with pytest.raises(GraphError, match="depend on their place"):
        taught(setting(Deep(), Deep(), data), "theseus")


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "vit"])
def test_a_probability_of_one_is_the_successor_and_of_none_the_predecessor(kind):
    given = alike(kind=kind, data=None)
    batch = first_batch(given)
    if kind == "vit":
        batch = Batch(inputs("vit", count=8), batch.labels, batch.ids, 8)
        given.task = lz.Task(train=[(batch.inputs, batch.labels)], num_classes=2)
    for rate, model in ((1.0, of_teacher_layers(given.teacher, [1, 2])), (0.0, given.teacher)):
        lessons = taught(given, "theseus", schedule="constant", rate=rate)
        stage = lessons.stages[0]
        stage.prepare()
        student = lessons.finish().eval()
        stage.prepare()
        result = stage.step(student, batch)
        assert result["loss"].item() == pytest.approx(entropy(model, batch), rel=1e-5)
        assert result["terms"]["replaced"] == rate
        result["loss"].backward()
        for name, one in student.named_parameters():
            assert (one.grad is not None) == of_blocks(name), name
            assert not of_blocks(name) or bool(one.grad.any()) == (rate == 1), name


def test_what_is_drawn_runs():
    given = alike()
    stack = make_stack(given, GroupOptions())
    batch = first_batch(given)
    with torch.no_grad(), stack.replaced([True, False]):
        found = stack.student(**batch.inputs).logits
    by_hand = of_teacher_layers(given.teacher, [1, 3, 4])
    with torch.no_grad():
        assert torch.allclose(found, by_hand(**batch.inputs).logits, atol=1e-6)


def test_each_sample_runs_through_its_own_modules():
    given = alike()
    stack = make_stack(given, GroupOptions())
    note_shared(stack, given.task.example_inputs)
    batch = first_batch(given)
    chosen = [torch.tensor([1, 0, 1, 0, 1, 1, 0, 0]).bool(), torch.tensor([1, 1, 0, 0, 0, 1, 0, 1]).bool()]
    with torch.no_grad(), stack.replaced(chosen):
        found = stack.student(**batch.inputs).logits
    for row in range(8):
        with torch.no_grad(), stack.replaced([bool(one[row]) for one in chosen]):
            alone = stack.student(**{key: value[row : row + 1] for key, value in batch.inputs.items()}).logits
        assert torch.allclose(found[row], alone[0], atol=1e-5), row


def test_a_decoder_keeps_no_keys_while_layers_are_replaced():
    import transformers

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=30, num_labels=2, pad_token_id=0, **sizes)
    torch.manual_seed(0)
    model = transformers.LlamaForSequenceClassification(config).eval()
    given = setting(model, copy.deepcopy(model))
    stack = make_stack(given, GroupOptions())
    note_shared(stack, given.task.example_inputs)
    batch, rows = first_batch(given), torch.arange(8) % 3 == 0
    by_hand = shortened(copy.deepcopy(model), [layers_of(model)[1]])
    with torch.no_grad():
        with stack.replaced([True, False]):
            assert torch.allclose(
                stack.student(**batch.inputs).logits, by_hand(**batch.inputs).logits, atol=1e-6
            )
        with stack.replaced([rows, False]):
            found = stack.student(**batch.inputs).logits
        assert torch.allclose(found[rows], by_hand(**batch.inputs).logits[rows], atol=1e-6)
        assert torch.allclose(found[~rows], model(**batch.inputs).logits[~rows], atol=1e-6)
    assert stack.student.config.use_cache is True


def test_arguments_that_all_samples_share_are_not_parted():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x, shift):
            return self.linear(x) + shift[:, None]

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(Shifted() for _ in range(2))

        def forward(self, x):
            for block in self.blocks:
                x = block(x, torch.arange(4.0))
            return x.mean(1)

    torch.manual_seed(0)
    model, values = Deep(), torch.randn(4, 4, 3)  # as many samples as positions
    data = lz.Task(train=[(values, torch.arange(4) % 3)], num_classes=3)
    stack = make_stack(setting(model, copy.deepcopy(model), data), GroupOptions(compress_ratio=1))
    note_shared(stack, values[:1])
    rows = torch.tensor([True, False, True, True])
    with torch.no_grad(), stack.replaced([rows, ~rows]):
        assert torch.allclose(stack.student(values), model(values), atol=1e-6)


def test_a_batch_that_is_not_the_first_axis_is_refused():
    place = Place([nn.Identity()], nn.Identity())
    place.chosen = torch.tensor([True, False])
    with pytest.raises(GraphError, match="first axis must be the batch"):
        place(torch.zeros(3, 2))


def test_modes_follow_the_student_and_the_option():
    for dropout in (True, False):
        stack = make_stack(alike(), GroupOptions(predecessor_dropout=dropout))
        for training in (True, False):
            stack.student.train(training)
            with stack.replaced([False, False]):
                modes = {module.training for place in stack.places for module in place.predecessor.modules()}
            assert modes == {training and dropout}
