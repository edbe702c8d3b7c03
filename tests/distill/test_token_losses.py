"""Losses of language models: KL, Jensen-Shannon and skew divergences of the tokens that count, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import softmax

from lianzhi.distill import losses
from lianzhi.errors import DataError, RecipeError

GENERATOR = torch.Generator().manual_seed(0)
STUDENT, TEACHER = 2 * torch.randn(2, 3, 5, 7, generator=GENERATOR)  # 3 texts, 5 tokens, a vocabulary of 7
MASK = torch.tensor([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])  # padding on the right, on the left
LABELS = torch.tensor([[-100, 2, 3, 4, -100], [-100, 1, 1, 2, 3], [-100, -100, 0, 6, 5]])
COUNTED = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum())


def skewed(p: np.ndarray, q: np.ndarray, skew: float) -> float:
    return kl(p, skew * p + (1 - skew) * q)


def generalised(p: np.ndarray, q: np.ndarray, beta: float) -> float:
    middle = beta * p + (1 - beta) * q
    return beta * kl(p, middle) + (1 - beta) * kl(q, middle)


CASES = {  # name, options, the divergence of the teacher's p and the student's q
    "forward": ("forward_kl", {}, kl),
    "reverse": ("reverse_kl", {}, lambda p, q: kl(q, p)),
    "even": ("jsd", {}, lambda p, q: generalised(p, q, 0.5)),
    "uneven": ("jsd", {"beta": 0.1}, lambda p, q: generalised(p, q, 0.1)),
    "skew": ("skew_kl", {}, lambda p, q: skewed(p, q, 0.1)),
    "skew_back": ("skew_kl", {"skew": 0.3, "reverse": True}, lambda p, q: skewed(q, p, 0.3)),
}
ALL = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def loss_of(case, *arguments, **options):
    return getattr(losses, case[0])(*arguments, **case[1], **options)


@ALL
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_golden(case, temperature):
    p, q = (softmax(logits.double().numpy() / temperature) for logits in (TEACHER, STUDENT))
    wanted = temperature**2 * np.mean([case[2](p[at], q[at]) for at in COUNTED])
    found = loss_of(case, STUDENT, TEACHER, LABELS, mask=MASK, temperature=temperature)
    assert found.item() == pytest.approx(wanted, rel=1e-5)
    assert wanted > 0.01


@ALL
def test_without_a_shift_a_position_is_about_its_own_token(case):
    p, q = (softmax(logits.double().numpy()) for logits in (TEACHER, STUDENT))
    positions = [tuple(at) for at in torch.nonzero(MASK).tolist()]
    wanted = np.mean([case[2](p[at], q[at]) for at in positions])
    assert loss_of(case, STUDENT, TEACHER, mask=MASK, shift=False).item() == pytest.approx(wanted, rel=1e-5)


@ALL
def test_zero_for_equal_models(case):
    assert loss_of(case, TEACHER, TEACHER).item() == pytest.approx(0.0, abs=1e-6)


@ALL
def test_what_does_not_count_has_no_part(case):
    student, teacher = STUDENT.clone(), TEACHER.clone()
    counts = torch.zeros(3, 5, dtype=torch.bool)
    for at in COUNTED:
        counts[at] = True
    student[~counts], teacher[~counts] = float("nan"), float("inf")
    student.requires_grad_()
    loss = loss_of(case, student, teacher, LABELS, mask=MASK)
    alone = loss_of(case, STUDENT[counts][None], TEACHER[counts][None], shift=False)
    assert loss.item() == pytest.approx(alone.item(), rel=1e-6)
    loss.backward()
    assert not student.grad[~counts].any()
    assert student.grad[counts].isfinite().all()


@ALL
def test_the_last_position_predicts_nothing(case):
    alone = loss_of(case, STUDENT[:, :-1], TEACHER[:, :-1], shift=False)
    assert loss_of(case, STUDENT, TEACHER).item() == pytest.approx(alone.item(), rel=1e-6)


@ALL
def test_parts_of_a_batch_give_the_gradient_of_the_whole(case):
    """Texts with 3, 3 and 3 tokens would not show it: the parts here have 3 and 6."""
    student = STUDENT.clone().requires_grad_()
    (whole,) = torch.autograd.grad(loss_of(case, student, TEACHER, LABELS, mask=MASK), student)
    parts = [slice(0, 1), slice(1, 3)]
    total = sum(losses.count_tokens(LABELS[part], MASK[part]) for part in parts)
    assert total == len(COUNTED)
    for kind in (total, torch.tensor(total)):
        summed = sum(
            loss_of(case, student[part], TEACHER[part], LABELS[part], mask=MASK[part], total=kind)
            for part in parts
        )
        (accumulated,) = torch.autograd.grad(summed, student)
        assert torch.allclose(whole, accumulated, atol=1e-7)


@ALL
def test_no_gradient_goes_to_the_teacher(case):
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    loss_of(case, student, teacher, LABELS).backward()
    assert teacher.grad is None
    assert student.grad.any()


@ALL
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(case, kind):
    found = loss_of(case, STUDENT.to(kind), TEACHER.to(kind))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(loss_of(case, STUDENT, TEACHER).item(), rel=3e-2)
    large = (1000 * STUDENT).to(kind).requires_grad_()
    loss = loss_of(case, large, -large.detach())
    loss.backward()
    assert loss.isfinite()
    assert large.grad.isfinite().all()


@ALL
def test_a_word_that_is_ruled_out_counts_nothing(case):
    """A vocabulary that is padded with logits of -inf, in both models."""
    padding = torch.full((3, 5, 2), float("-inf"))
    student = torch.cat([STUDENT, padding], -1).requires_grad_()
    loss = loss_of(case, student, torch.cat([TEACHER, padding], -1))
    loss.backward()
    assert loss.item() == pytest.approx(loss_of(case, STUDENT, TEACHER).item(), rel=1e-6)
    assert student.grad.isfinite().all()


@ALL
def test_gradients_are_those_of_finite_differences(case):
    student = STUDENT[:1, :3].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss_of(case, s, TEACHER[:1, :3].double()), student)


@ALL
def test_nothing_to_learn(case):
    student = STUDENT.clone().requires_grad_()
    for total in (None, 0, 12):
        loss = loss_of(case, student, TEACHER, torch.full((3, 5), -100), total=total)
        loss.backward()
        assert loss.item() == 0.0
    assert not student.grad.any()


@ALL
def test_one_output_is_a_regression(case):
    student, teacher = torch.tensor([[[1.0], [2.0], [9.0]]]), torch.tensor([[[1.0], [4.0], [0.0]]])
    assert loss_of(case, student, teacher).item() == pytest.approx(2.0)


def test_forward_kl_is_kd_of_the_tokens_that_count():
    counts = torch.zeros(3, 5)
    for at in COUNTED:
        counts[at] = 1
    wanted = losses.kd(STUDENT, TEACHER, mask=counts, alpha=1.0, temperature=2.0)
    found = losses.forward_kl(STUDENT, TEACHER, LABELS, mask=MASK, temperature=2.0)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)


def test_the_limits_of_the_mixtures():
    forward, reverse = (
        getattr(losses, name)(STUDENT, TEACHER).item() for name in ("forward_kl", "reverse_kl")
    )
    assert losses.skew_kl(STUDENT, TEACHER, skew=0.0).item() == forward
    assert losses.skew_kl(STUDENT, TEACHER, skew=0.0, reverse=True).item() == reverse
    student, teacher = STUDENT.double(), TEACHER.double()
    assert losses.jsd(student, teacher, beta=1e-6).item() / 1e-6 == pytest.approx(forward, rel=1e-3)
    assert losses.jsd(student, teacher, beta=1 - 1e-6).item() / 1e-6 == pytest.approx(reverse, rel=1e-3)
    swapped = losses.jsd(TEACHER, STUDENT).item()
    assert losses.jsd(STUDENT, TEACHER).item() == pytest.approx(swapped, rel=1e-5), "symmetric"
    far = 100 * torch.eye(7).expand(3, 7, 7)
    assert losses.jsd(far, far.flip(1)).item() <= float(np.log(2)), "bounded"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"total": 8}, "total is 8, and 12 tokens count in this part alone"),
        ({"mask": torch.ones(3, 4)}, r"mask have shape \[3, 4\].*\[3, 5\]"),
        ({"labels": torch.ones(5)}, r"labels have shape \[5\]"),
    ],
)
def test_wrong_tokens_are_named(options, message):
    with pytest.raises(DataError, match=message):
        losses.forward_kl(STUDENT, TEACHER, **options)


def test_logits_of_single_samples_are_refused():
    with pytest.raises(DataError, match=r"\[5, 7\].*batch, tokens, vocabulary"):
        losses.forward_kl(STUDENT[0], TEACHER[0])
    with pytest.raises(DataError, match=r"\[3, 5, 7\] and the teacher's \[3, 5, 6\]"):
        losses.jsd(STUDENT, TEACHER[..., :6])
    with pytest.raises(DataError, match="labels, a mask or both"):
        losses.count_tokens()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("forward_kl", {"temperature": 0.0}),
        ("reverse_kl", {"temperature": -1.0}),
        ("jsd", {"beta": 0.0}),
        ("jsd", {"beta": 1.0}),
        ("skew_kl", {"skew": 1.0}),
        ("skew_kl", {"skew": -0.1}),
    ],
)
def test_options_out_of_range_are_named(name, options):
    with pytest.raises(RecipeError, match=next(iter(options))):
        getattr(losses, name)(STUDENT, TEACHER, **options)


@pytest.mark.parametrize("name", ["forward_kl", "jsd", "reverse_kl", "skew_kl"])
def test_the_name_means_the_function(name):
    assert losses.registry.get(name).build is getattr(losses, name)
    assert losses.registry.get(name).paper.startswith("https://arxiv.org/abs/")
