"""The method theseus_plus: its loss by hand, its draws and orders, and that without its options it is theseus."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from lessons import STILL, carried_out, first_batch, of_teacher_layers, setting, task, taught, terms_of
from replaced import alike, entropy, of_blocks, tensors
from small_transformers import bert

from lianzhi import train
from lianzhi.distill.capture import capture
from lianzhi.distill.methods.difficulty import difficulty
from lianzhi.distill.methods.successors import GroupOptions, make_stack
from lianzhi.distill.transformer import layers_of

pytest.importorskip("transformers")

OFF = {"replace": "batch", "order": "together", "alpha": 0.0, "hidden": 0.0, "tuned": "successors"}


def test_without_its_options_it_is_theseus():
    ends = []
    for name, options in (("theseus", {}), ("theseus_plus", OFF)):
        given = alike()
        lessons = taught(given, name, **options)
        histories = carried_out(given, lessons, epochs=2)
        ends.append((tensors(lessons.finish()), [entry["loss"] for one in histories for entry in one.epochs]))
    assert ends[0][1] == ends[1][1]
    assert all(torch.equal(value, ends[1][0][name]) for name, value in ends[0][0].items())


def test_the_loss_by_hand():
    given = alike()
    lessons = taught(given, "theseus_plus", alpha=0.3, temperature=3.0, hidden=2.0, groups=[3, 1])
    batch = first_batch(given)
    student = lessons.finish().eval()
    result = lessons.stages[1].step(student, batch)
    own, theirs = layers_of(student), [layers_of(given.teacher)[2], layers_of(given.teacher)[3]]
    with torch.no_grad(), capture(student, own) as ours:
        logits = student(**batch.inputs).logits.double().numpy()
    with torch.no_grad(), capture(given.teacher, theirs) as seen:
        wanted = given.teacher(**batch.inputs).logits.double().numpy()
    p, q = (np.exp(x / 3) / np.exp(x / 3).sum(1, keepdims=True) for x in (wanted, logits))
    mask = batch.inputs["attention_mask"].numpy().astype(bool)
    errors = [
        np.mean([((ours[a][row] - seen[b][row]).double().numpy()[mask[row]] ** 2).mean() for row in range(8)])
        for a, b in zip(own, theirs, strict=True)
    ]
    terms = terms_of(result)
    # the two are nearly alike: what is left of float32's logarithms is in the sixth place of the KL
    assert terms["soft"] == pytest.approx(9 * (p * np.log(p / q)).sum(1).mean(), rel=1e-4, abs=1e-6)
    assert terms["hidden"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert terms["hard"] == pytest.approx(entropy(student, batch), rel=1e-5)
    for name, weight in (("soft", 0.3), ("hard", 0.7), ("hidden", 2.0)):
        assert terms[f"{name}_weighted"] == pytest.approx(weight * terms[name])
    whole = sum(terms[f"{name}_weighted"] for name in ("soft", "hard", "hidden"))
    assert result["loss"].item() == pytest.approx(whole, rel=1e-6)


def test_a_predecessor_that_nothing_replaces_has_nothing_to_learn():
    given = alike()
    lessons = taught(given, "theseus_plus", schedule="constant", rate=0.0)
    terms = terms_of(lessons.stages[0].step(lessons.finish().eval(), first_batch(given)))
    assert (terms["soft"], terms["hidden"]) == (0.0, 0.0)
    assert (terms["rate"], terms["replaced"]) == (0.0, 0.0)


def test_nearly_every_successor_learns_in_every_update():
    given = alike()
    stage = taught(given, "theseus_plus", schedule="constant").stages[0]
    stage.prepare()
    stage.step(stage.model, first_batch(given))["loss"].backward()
    learned = {
        name for name, one in stage.model.named_parameters() if one.grad is not None and one.grad.any()
    }
    assert learned == {name for name, _ in stage.model.named_parameters() if of_blocks(name)}


def rates(**options) -> list[float]:
    """At the middle of a stage of 8 modules of one layer, with rates from 0 to 1."""
    given = alike(8)
    lessons = taught(given, "theseus_plus", rate=0.0, compress_ratio=1, **options)
    lessons.stages[0].prepare()
    step = lessons.stages[0].step
    step.at(5, 10)
    return step.now


def test_orders():
    assert rates(order="together", spread=1.0) == [0.5] * 8
    assert rates(order="bottom", spread=1.0) == [1.0] * 4 + [0.0] * 4
    assert rates(order="top", spread=1.0) == [0.0] * 4 + [1.0] * 4
    assert rates(order="top") == [0.25] * 4 + [0.75] * 4


@pytest.mark.parametrize("order", ["easiest", "hardest"])
def test_difficulty_is_what_the_answers_lose(order):
    model = bert(4, seed=1, **STILL)
    student = copy.deepcopy(model)
    with torch.no_grad():
        for place, scale in ((1, 0.5), (3, 0.1)):
            for one in student.bert.encoder.layer[place].parameters():
                one.mul_(1 + scale)
    given = setting(model, student)
    stack = make_stack(given, GroupOptions(compress_ratio=1))
    found = difficulty(stack, given.task, samples=16, batch_size=8)
    assert (found[0], found[2]) == (0.0, 0.0)
    batches = list(given.task.batches("train", 8))[:2]
    for place in (1, 3):
        mixed = copy.deepcopy(model)
        mixed.bert.encoder.layer[place] = student.bert.encoder.layer[place]
        with torch.no_grad():
            p, q = (
                torch.cat([one(**batch.inputs).logits for batch in batches]).double().softmax(1).numpy()
                for one in (model, mixed)
            )
        assert found[place] == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-3)
    lessons = taught(given, "theseus_plus", compress_ratio=1, order=order, measured=16)
    stage = lessons.stages[0]
    stage.prepare()
    assert f"{int(np.argmax(found)) + 1} (KL {max(found):.3g})" in lessons.notes[-1]
    assert stage.step.rates.order[-1 if order == "easiest" else 0] == int(np.argmax(found))


def test_the_classifier_is_tuned_in_the_last_stage_only():
    given = alike()
    lessons = taught(given, "theseus_plus")
    before = tensors(given.teacher)
    states = [tensors(lessons.finish())]
    for stage in lessons.stages:
        stage.prepare()
        options = train.TrainOptions(epochs=1, batch_size=8, lr=3e-3, optimizer="adamw", keep="last")
        train.fit(stage.model, given.task, options, step=stage.step, progress=False)
        states.append(tensors(stage.model))
    moved = [
        {name for name in one if not torch.equal(one[name], other[name]) and not of_blocks(name)}
        for one, other in itertools.pairwise(states)
    ]
    assert moved[0] == set()
    assert {name.split(".")[-3] if "pooler" in name else name.split(".")[0] for name in moved[1]} == {
        "pooler",
        "classifier",
    }
    assert all(torch.equal(value, before[name]) for name, value in given.teacher.state_dict().items())
    assert all(one.grad is None for one in given.teacher.parameters())


def test_accumulated_batches_draw_by_sample_what_one_batch_draws():
    ends = []
    for accumulate, size in ((1, 8), (4, 2)):
        given = alike(data=task(8, batch=8))
        stage = taught(given, "theseus_plus", schedule="constant").stages[0]
        stage.prepare()
        options = train.TrainOptions(
            epochs=4, batch_size=size, accumulate=accumulate, lr=0.02, keep="last", schedule="constant"
        )
        history = train.fit(stage.model, given.task, options, step=stage.step, progress=False)
        ends.append((tensors(stage.model), [entry["terms"] for entry in history.epochs]))
    for name, value in ends[0][0].items():
        assert torch.allclose(value, ends[1][0][name], atol=1e-5), name
    for one, other in zip(ends[0][1], ends[1][1], strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_it_comes_close_to_the_teacher():
    given = alike(data=task(48, batch=16))
    batches = list(given.task.batches("train", 16))
    teacher = given.teacher.eval()
    teacher.classifier.weight.data *= 4  # sure of what it says

    def distance(model) -> float:
        with torch.no_grad():
            pairs = [[one.eval()(**batch.inputs).logits for one in (model, teacher)] for batch in batches]
        return sum((one.softmax(1) - other.softmax(1)).abs().mean().item() for one, other in pairs)

    before = distance(of_teacher_layers(teacher, [1, 2]))
    lessons = taught(given, "theseus_plus", alpha=1.0)
    carried_out(given, lessons, epochs=12, lr=1e-3, batch_size=16)
    assert distance(lessons.finish()) < 0.6 * before
