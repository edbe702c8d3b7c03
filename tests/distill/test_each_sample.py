"""One answer a token: padding changes nothing, and parts of a batch give the gradient of the whole."""

from __future__ import annotations

import pytest
import torch
from small_transformers import SIZES, TEXT

from lianzhi import distill
from lianzhi.distill.methods import Logits, Setting
from lianzhi.distill.methods.each_sample import mean_by_sample
from lianzhi.errors import DataError
from lianzhi.tasks import Batch, Task

WORDS = torch.tensor([[4, 5, 6, 7, 8, 9], [10, 11, 12, 0, 0, 0]])
LENGTHS = (6, 3)
METHODS = {
    "kd": {"alpha": 1.0},
    "kd standardized": {"alpha": 1.0, "standardize": True},
    "pkd": {"alpha": 1.0, "patience": 0.0},
    "layerwise": {"alpha": 1.0, "weight": 3.0},
    "distilbert": {"hard": 0.0, "cosine": 0.0},
    "tinybert": {},
    "theseus_plus": {"alpha": 1.0, "hidden": 0.0, "order": "together"},
}


def masked_lm(layers, seed):
    import transformers

    config = transformers.BertConfig(**SIZES, **TEXT, num_hidden_layers=layers)
    torch.manual_seed(seed)
    model = transformers.BertForMaskedLM(config).eval()
    for parameter in model.parameters():
        parameter.data.mul_(4 if parameter.dim() == 2 else 1)
    return model


def batch_of(rows, padding=0):
    """Some of the texts, with so much more padding than the longest needs."""
    width = max(LENGTHS[row] for row in rows) + padding
    ids = torch.nn.functional.pad(WORDS, (0, 9))[rows, :width]
    mask = torch.stack([torch.arange(width) < LENGTHS[row] for row in rows]).long()
    labels = torch.where(mask.bool(), ids, -100)
    return Batch({"input_ids": ids, "attention_mask": mask}, labels, torch.tensor(rows), len(rows))


def loss(outputs, labels):
    logits = outputs["logits"]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)


def setting_of(student, teacher):
    task = Task(train=[(batch_of([0, 1]).inputs, torch.tensor([0, 1]))], loss=loss, num_classes=None)
    return Setting(teacher=teacher, student=student, task=task, source=Logits(teacher))


def last_stage(name, setting):
    entry = distill.methods.registry.get(name.split()[0])
    return entry.build(setting, entry.options(**METHODS[name])).stages[-1]


def steps_of(name):
    """The step of a method, and the model that it trains."""
    teacher, student = masked_lm(4, 0), masked_lm(4 if name == "layerwise" else 2, 1)
    stage = last_stage(name, setting_of(student, teacher))
    return stage.step, (stage.model or student).eval()


@pytest.mark.parametrize("name", METHODS)
def test_padding_changes_nothing_and_parts_give_the_gradient_of_the_whole(name):
    step, model = steps_of(name)

    def gradient(*parts):
        model.zero_grad()
        for part in parts:
            (step(model, part)["loss"] * len(part.ids) / 2).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    whole = gradient(batch_of([0, 1]))
    assert whole.abs().max() > 1e-3
    for other in (gradient(batch_of([0, 1], padding=7)), gradient(batch_of([0]), batch_of([1]))):
        assert (whole - other).abs().max() <= 2e-5 * whole.abs().max()


def test_the_value_is_that_of_each_sample_s_tokens():
    def rows(own, theirs):
        return (own - theirs).square().sum(-1)

    torch.manual_seed(0)
    student, teacher, mask = (
        torch.randn(2, 4, 3),
        torch.randn(2, 4, 3),
        torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]]),
    )
    student[0, 3], teacher[1, 2] = float("nan"), float("inf")
    each = [rows(student[0, :3], teacher[0, :3]).mean(), rows(student[1, :1], teacher[1, :1]).mean()]
    assert torch.allclose(mean_by_sample(rows, student, teacher, mask), sum(each) / 2)
    with pytest.raises(DataError, match="mask has shape"):
        mean_by_sample(rows, student, teacher, mask[:, :2])


@pytest.mark.parametrize(("name", "options"), [("dkd", {}), ("dist", {}), ("logit_loss", {})])
def test_methods_of_one_answer_say_so(name, options):
    entry = distill.methods.registry.get(name)
    student = masked_lm(2, 1)
    step = entry.build(setting_of(student, masked_lm(4, 0)), entry.options(**options)).stages[0].step
    with pytest.raises(DataError, match=rf"{name} compares one answer of each sample"):
        step(student, batch_of([0, 1]))
