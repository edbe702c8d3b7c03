"""The loss `kd`: golden values by hand, and what must hold whatever the logits are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import softmax

from lianzhi.distill import losses
from lianzhi.errors import DataError, RecipeError

STUDENT = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])
TEACHER = torch.tensor([[2.0, 0.0, -1.0], [4.0, 1.0, 1.0]])
LABELS = torch.tensor([0, 2])


def by_hand(student, teacher, labels=None, *, temperature=4.0, alpha=0.9, teacher_temperature=None) -> float:
    """The equation in NumPy, double precision."""
    student, teacher = np.asarray(student, dtype=np.float64), np.asarray(teacher, dtype=np.float64)
    other = teacher_temperature or temperature
    p, q = softmax(teacher / other), softmax(student / temperature)
    value = alpha * temperature * other * (p * np.log(p / q)).sum(-1).mean()
    if labels is not None:
        picked = softmax(student)[np.arange(len(labels)), np.asarray(labels)]
        value += (1 - alpha) * -np.log(picked).mean()
    return float(value)


@pytest.mark.parametrize("labels", [None, LABELS])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 1.0, "alpha": 0.5},
        {"temperature": 20.0, "alpha": 0.0},
        {"alpha": 1.0},
        {"temperature": 2.0, "teacher_temperature": 5.0},
    ],
)
def test_golden(labels, options):
    wanted = by_hand(STUDENT, TEACHER, labels, **options)
    assert losses.kd(STUDENT, TEACHER, labels, **options).item() == pytest.approx(wanted, rel=1e-5, abs=1e-7)


def test_a_number_that_was_worked_out_on_paper():
    """p = (2/3, 1/3), q = (1/3, 2/3): KL = 1/3 · ln 2; T² = 4; alpha = 1/2; CE of class 1 = ln 5/4 at T = 2."""
    log2 = float(np.log(2))
    student, teacher = torch.tensor([[0.0, 2 * log2]]), torch.tensor([[2 * log2, 0.0]])
    loss = losses.kd(student, teacher, torch.tensor([1]), temperature=2.0, alpha=0.5)
    assert loss.item() == pytest.approx(0.5 * 4 * log2 / 3 + 0.5 * float(np.log(5 / 4)), rel=1e-6)


@given(seed=st.integers(0, 1000), temperature=st.floats(0.5, 20), classes=st.integers(2, 40))
@settings(max_examples=30, deadline=None)
def test_never_negative_and_zero_for_equal_logits(seed, temperature, classes):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = 5 * torch.randn(2, 4, classes, generator=generator)
    assert losses.kd(teacher, teacher, temperature=temperature).item() == 0.0
    assert losses.kd(student, teacher, temperature=temperature).item() > 0.0
    shifted = losses.kd(student + 3, teacher - 7, temperature=temperature).item()
    assert shifted == pytest.approx(losses.kd(student, teacher, temperature=temperature).item(), rel=1e-3)


def test_duplicating_classes_is_not_averaged_over_them():
    """A mean over classes would shrink with impossible classes; the sum does not."""
    padded = [torch.cat([logits, torch.full((2, 5), -60.0)], 1) for logits in (STUDENT, TEACHER)]
    wanted = losses.kd(STUDENT, TEACHER, temperature=1.0).item()
    assert losses.kd(*padded, temperature=1.0).item() == pytest.approx(wanted, rel=1e-5)


def test_size_of_the_gradient_is_kept_by_the_temperature():
    """For high T the gradient by the logits becomes (s - t) / classes per sample, however large T is (1503.02531, 2.1)."""
    student = (STUDENT - STUDENT.mean(1, keepdim=True)).double().requires_grad_()
    teacher = (TEACHER - TEACHER.mean(1, keepdim=True)).double()
    losses.kd(student, teacher, temperature=1000.0, alpha=1.0).backward()
    assert torch.allclose(student.grad, (student - teacher).detach() / 3 / 2, rtol=5e-3)


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float32])
def test_a_mask_equals_slicing(kind):
    student, teacher = torch.randn(2, 3, 5, 7)
    labels = torch.randint(0, 7, (3, 5))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    keep = mask.bool()
    padded = labels.masked_fill(~keep, -100)
    student[~keep] = float("nan")  # what stands where nothing counts must not matter
    student.requires_grad_()
    loss = losses.kd(student, teacher, padded, mask=mask.to(kind))
    assert loss.item() == pytest.approx(
        losses.kd(student[keep], teacher[keep], labels[keep]).item(), rel=1e-6
    )
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient[keep].isfinite().all()
    assert not gradient[~keep].any()


def test_a_mask_that_leaves_nothing():
    student = STUDENT.clone().requires_grad_()
    loss = losses.kd(student, TEACHER, LABELS, mask=torch.zeros(2))
    loss.backward()
    assert loss.item() == 0.0
    assert not student.grad.any()


def test_parts_of_a_batch_give_the_gradient_of_the_whole():
    student, teacher, labels = torch.randn(7, 5).requires_grad_(), torch.randn(7, 5), torch.arange(7) % 5
    (whole,) = torch.autograd.grad(losses.kd(student, teacher, labels), student)
    parts = sum(
        losses.kd(student[part], teacher[part], labels[part]) * len(labels[part]) / 7
        for part in (slice(0, 3), slice(3, 4), slice(4, 7))
    )
    (accumulated,) = torch.autograd.grad(parts, student)
    assert torch.allclose(whole, accumulated, atol=1e-7)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_one_output_is_a_regression(shape):
    student, teacher = torch.tensor([[1.0], [2.0], [3.0], [5.0]]), torch.tensor([[1.0], [4.0], [3.0], [3.0]])
    labels = torch.tensor([0.0, 2.0, 3.0, 4.0]).view(shape)
    assert losses.kd(student, teacher, alpha=0.75, temperature=9.0).item() == pytest.approx(0.75 * 2.0)
    loss = losses.kd(student, teacher, labels, alpha=0.75).item()
    assert loss == pytest.approx(0.75 * 2.0 + 0.25 * 0.5)


def test_no_gradient_goes_to_the_teacher():
    teacher = TEACHER.clone().requires_grad_()
    losses.kd(STUDENT.clone().requires_grad_(), teacher, LABELS).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(kind):
    loss = losses.kd(STUDENT.to(kind), TEACHER.to(kind), LABELS)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(by_hand(STUDENT, TEACHER, LABELS), rel=1e-2)


def test_gradients_are_those_of_finite_differences():
    student, teacher = torch.randn(3, 4, dtype=torch.float64, requires_grad=True), torch.randn(3, 4)
    assert torch.autograd.gradcheck(lambda s: losses.kd(s, teacher, torch.tensor([0, 1, 3])), student)


@pytest.mark.parametrize(
    ("student", "teacher", "options", "message"),
    [
        ((2, 3), (2, 4), {}, r"\[2, 3\] and the teacher's \[2, 4\]"),
        ((3,), (3,), {}, r"\[3\]"),
        (
            (2, 3),
            (2, 3),
            {"labels": torch.zeros(3, dtype=torch.long)},
            r"labels have shape \[3\].*need \[2\]",
        ),
        ((2, 3), (2, 3), {"mask": torch.ones(2, 3)}, r"mask has shape \[2, 3\].*need \[2\]"),
    ],
)
def test_shapes_that_do_not_go_together_are_named(student, teacher, options, message):
    with pytest.raises(DataError, match=message):
        losses.kd(torch.zeros(student), torch.zeros(teacher), **options)


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"temperature": -2.0}, {"alpha": 1.5}, {"teacher_temperature": 0.0}]
)
def test_options_out_of_range_are_named(options):
    """A temperature of 0 would be NaN, and a negative one a loss that looks like one."""
    with pytest.raises(RecipeError, match=next(iter(options))):
        losses.kd(torch.ones(2, 3), torch.zeros(2, 3), **options)


@pytest.mark.parametrize("label", [-100, -1, 3])
def test_a_label_that_is_no_class_is_named(label):
    """-100 would be left out of the sum, and counted in the mean."""
    with pytest.raises(DataError, match=rf"label {label} is no class: the outputs have 3, 0 to 2.*mask"):
        losses.kd(torch.ones(2, 3), torch.zeros(2, 3), torch.tensor([0, label]))
    masked = losses.kd(
        torch.ones(2, 3), torch.zeros(2, 3), torch.tensor([0, label]), mask=torch.tensor([1, 0])
    )
    assert masked.item() == pytest.approx(0.1 * np.log(3), rel=1e-5)


def test_labels_are_whole_numbers_of_any_kind():
    wanted = losses.kd(STUDENT, TEACHER, torch.zeros(len(STUDENT), dtype=torch.long))
    for kind in (torch.int32, torch.int16, torch.uint8, torch.bool):
        assert losses.kd(STUDENT, TEACHER, torch.zeros(len(STUDENT), dtype=kind)) == wanted
    with pytest.raises(
        DataError, match=r"a class is needed as the label of a sample; the labels are torch.float32"
    ):
        losses.kd(STUDENT, TEACHER, torch.zeros(len(STUDENT)))


def test_the_name_means_the_function():
    import lianzhi.distill.losses.kd as module  # noqa: F401

    assert callable(losses.kd)
    entry = losses.registry.get("kd")
    assert entry.build is losses.kd
    assert entry.config().to_dict() == {
        "temperature": 4.0,
        "alpha": 0.9,
        "teacher_temperature": None,
        "standardize": False,
    }
    with pytest.raises(RecipeError, match="temperature"):
        entry.config(temperature=0)
