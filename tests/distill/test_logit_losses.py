"""Losses on logits (`soft_cross_entropy`, `logit_mse`, `dkd`, `dist`, logit standardisation) against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import softmax

from lianzhi.distill import losses
from lianzhi.distill.losses.dkd import decoupled
from lianzhi.errors import DataError, RecipeError

GENERATOR = torch.Generator().manual_seed(0)
STUDENT, TEACHER = 2 * torch.randn(2, 6, 5, generator=GENERATOR)
LABELS = torch.tensor([0, 4, 2, 1, 3, 2])


def z_score(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(-1, keepdims=True)) / values.std(-1, keepdims=True)


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p * np.log(p / q)).sum(-1)


def doubles(*tensors: torch.Tensor) -> list[np.ndarray]:
    return [tensor.double().numpy() for tensor in tensors]


def dkd_by_hand(student, teacher, labels, *, alpha=1.0, beta=8.0, temperature=4.0, standardize=False):
    student, teacher = doubles(student, teacher)
    if standardize:
        student, teacher = z_score(student), z_score(teacher)
    total = 0.0
    for s, t, label in zip(student, teacher, labels.tolist(), strict=True):
        q, p = softmax(s / temperature), softmax(t / temperature)
        target = kl(np.array([p[label], 1 - p[label]]), np.array([q[label], 1 - q[label]]))
        others = kl(np.delete(p, label) / (1 - p[label]), np.delete(q, label) / (1 - q[label]))
        total += temperature**2 * (alpha * target + beta * others)
    return total / len(student)


def dist_by_hand(student, teacher, *, beta=1.0, gamma=1.0, temperature=1.0):
    q, p = (softmax(values / temperature) for values in doubles(student, teacher))
    inter = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q, p, strict=True)])
    intra = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q.T, p.T, strict=True)])
    return temperature**2 * (beta * inter + gamma * intra)


def call(name, student, teacher, labels=None, **options):
    """The loss of that name; `dkd` alone needs labels."""
    given_labels = (labels,) if name == "dkd" else ()
    return getattr(losses, name)(student, teacher, *given_labels, **options)


NAMES = ["soft_cross_entropy", "logit_mse", "dkd", "dist"]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_cross_entropy_golden(temperature):
    s, t = doubles(STUDENT, TEACHER)
    wanted = -(softmax(t / temperature) * np.log(softmax(s / temperature))).sum(-1).mean()
    loss = losses.soft_cross_entropy(STUDENT, TEACHER, temperature=temperature)
    assert loss.item() == pytest.approx(wanted, rel=1e-5)


def test_soft_cross_entropy_is_kl_and_the_teachers_entropy():
    (p,) = (softmax(values) for values in doubles(TEACHER))
    entropy = -(p * np.log(p)).sum(-1).mean()
    divergence = losses.kd(STUDENT, TEACHER, temperature=1.0, alpha=1.0).item()
    assert losses.soft_cross_entropy(STUDENT, TEACHER).item() == pytest.approx(divergence + entropy, rel=1e-5)
    assert losses.soft_cross_entropy(TEACHER, TEACHER).item() == pytest.approx(entropy, rel=1e-5)


def test_logit_mse_golden():
    s, t = doubles(STUDENT, TEACHER)
    assert losses.logit_mse(STUDENT, TEACHER).item() == pytest.approx(((s - t) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": 0.0},
        {"beta": 0.0},
        {"alpha": 2.0, "beta": 0.5, "temperature": 1.0},
        {"standardize": True},
        {"standardize": True, "temperature": 2.0},
    ],
)
def test_dkd_golden(options):
    wanted = dkd_by_hand(STUDENT, TEACHER, LABELS, **options)
    assert losses.dkd(STUDENT, TEACHER, LABELS, **options).item() == pytest.approx(wanted, rel=1e-5)


@given(seed=st.integers(0, 1000), temperature=st.floats(0.5, 10), classes=st.integers(3, 20))
@settings(max_examples=25, deadline=None)
def test_kl_is_made_of_the_parts_of_dkd(seed, temperature, classes):
    """KL = TCKD + (1 - p_y) · NCKD of each sample: equation 6 of the paper."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = 3 * torch.randn(2, 1, classes, generator=generator).double()
    label = torch.randint(0, classes, (1,), generator=generator)
    target, others = decoupled(student, teacher, label, temperature)
    rest = 1 - torch.softmax(teacher / temperature, -1)[0, label]
    whole = losses.kd(student, teacher, temperature=temperature, alpha=1.0)
    assert (target + rest * others).item() == pytest.approx(whole.item(), rel=1e-7, abs=1e-12)


def test_dkd_of_two_classes_is_kd():
    student, teacher, labels = STUDENT[:, :2], TEACHER[:, :2], LABELS % 2
    wanted = losses.kd(student, teacher, alpha=1.0).item()
    assert losses.dkd(student, teacher, labels).item() == pytest.approx(wanted, rel=1e-5)


def test_dkd_of_a_student_that_is_sure():
    """1 - p_y is below float32's resolution: taken as a difference it is 0, and its logarithm -inf."""
    student = torch.tensor([[400.0, 0.0, -8.0]], requires_grad=True)
    teacher = torch.tensor([[100.0, 0.0, 4.0]])
    loss = losses.dkd(student, teacher, torch.tensor([0]))
    loss.backward()
    q, p = np.array([0.0, -8.0]) / 4, np.array([0.0, 4.0]) / 4
    others = kl(softmax(p), softmax(q))
    assert loss.item() == pytest.approx(16 * 8 * others, rel=1e-5)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("options", [{}, {"temperature": 4.0}, {"beta": 0.0}, {"gamma": 0.0, "beta": 2.0}])
def test_dist_golden(options):
    wanted = dist_by_hand(STUDENT, TEACHER, **options)
    assert losses.dist(STUDENT, TEACHER, **options).item() == pytest.approx(wanted, rel=1e-5)


def test_dist_sees_the_correlation_of_rare_classes():
    """Probabilities near 1e-6 in a column: a small constant in the denominator would hide that they are related."""
    teacher = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)).double()
    teacher[:, 2] -= 15
    assert losses.dist(teacher.float(), teacher.float(), beta=0.0).item() == pytest.approx(0.0, abs=1e-5)
    student = teacher.clone()
    student[:, 2] = student[:, 2].flip(0)
    wanted = dist_by_hand(student, teacher, beta=0.0)
    assert losses.dist(student.float(), teacher.float(), beta=0.0).item() == pytest.approx(wanted, rel=1e-4)


def test_dist_of_models_that_are_very_sure():
    """Columns of probabilities whose squares single precision cannot hold: value and gradient are those of the formula."""
    unlikely = torch.tensor([0.0, 0.0, 0.0, 30.0, 45.0, 60.0])
    student, teacher = torch.randn(2, 24, 6, generator=torch.Generator().manual_seed(1)) - unlikely
    exact = student.double().requires_grad_()
    losses.dist(student.requires_grad_(), teacher).backward()
    losses.dist(exact, teacher.double()).backward()
    wanted = dist_by_hand(student.detach(), teacher)
    assert losses.dist(student, teacher).item() == pytest.approx(wanted, rel=1e-4)
    assert torch.allclose(student.grad.double(), exact.grad, atol=1e-4 * exact.grad.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [60.0, 4000.0])
def test_dist_has_a_finite_gradient_however_sure_the_models_are(dtype, size):
    student, teacher = (size * torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(0))).to(dtype)
    losses.dist(student.requires_grad_(), teacher).backward()
    assert student.grad.isfinite().all()


def test_dist_where_nothing_is_related():
    flat, varied = torch.zeros(4, 3, requires_grad=True), TEACHER[:4, :3]
    loss = losses.dist(flat, varied)
    loss.backward()
    assert loss.item() == pytest.approx(2.0)
    assert not flat.grad.any()
    assert losses.dist(varied, flat).item() == 0.0, "a constant teacher has nothing to teach"
    one = STUDENT[:1].clone().requires_grad_()
    loss = losses.dist(one, TEACHER[:1])
    loss.backward()
    assert loss.item() == pytest.approx(losses.dist(STUDENT[:1], TEACHER[:1], gamma=0.0).item())
    assert one.grad.isfinite().all()


@pytest.mark.parametrize("whose", ["student", "teacher"])
def test_dist_of_logits_that_are_nan_is_nan(whose):
    """They vary with nothing, and must not be taken for a teacher that has nothing to teach."""
    sides = {"student": STUDENT.clone(), "teacher": TEACHER.clone()}
    sides[whose][1] = torch.nan
    assert losses.dist(sides["student"], sides["teacher"]).isnan()


def test_dist_is_indifferent_to_scale_and_shift_of_probabilities():
    p = softmax(doubles(TEACHER)[0])
    blurred = 0.25 * p + 0.75 / p.shape[-1]
    assert losses.dist(torch.tensor(blurred).log(), TEACHER).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("options", [{"temperature": 2.0}, {"temperature": 2.0, "teacher_temperature": 3.0}])
def test_kd_of_standardized_logits(options):
    s, t = (z_score(values) for values in doubles(STUDENT, TEACHER))
    temperature, other = options["temperature"], options.get("teacher_temperature", options["temperature"])
    soft = temperature * other * kl(softmax(t / other), softmax(s / temperature)).mean()
    loss = losses.kd(STUDENT, TEACHER, alpha=1.0, standardize=True, **options)
    assert loss.item() == pytest.approx(soft, rel=1e-5)
    hard = losses.kd(STUDENT, TEACHER, LABELS, alpha=0.0).item()
    both = losses.kd(STUDENT, TEACHER, LABELS, alpha=0.9, standardize=True, **options).item()
    assert both == pytest.approx(0.9 * soft + 0.1 * hard, rel=1e-5), "the labels see the logits as they are"


@pytest.mark.parametrize("name", ["kd", "dkd"])
@pytest.mark.parametrize("kind", [torch.float16, torch.float32])
def test_standardized_logits_have_no_scale(name, kind):
    scaled = (7 * TEACHER - 3).to(kind)
    assert call(name, scaled, TEACHER, LABELS, standardize=True).item() == pytest.approx(0.0, abs=1e-4)
    assert call(name, scaled, TEACHER, LABELS).item() > 0.1


def test_standardized_logits_that_are_all_the_same():
    flat = torch.full((2, 3), 5.1, requires_grad=True)
    loss = losses.kd(flat, TEACHER[:2, :3], standardize=True)
    loss.backward()
    assert losses.standardized(flat).abs().max() == 0
    assert loss.isfinite()
    assert not flat.grad.any()


def test_gradient_of_standardized_logits():
    logits = STUDENT[:3].double().requires_grad_()
    assert torch.autograd.gradcheck(losses.standardized, logits)


@pytest.mark.parametrize("name", ["logit_mse", "dkd", "dist"])
@pytest.mark.parametrize("seed", range(3))
def test_zero_for_equal_logits_and_never_negative(name, seed):
    student, teacher = 4 * torch.randn(2, 7, 9, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(7)
    assert call(name, teacher, teacher, labels).item() == pytest.approx(0.0, abs=1e-6)
    assert call(name, student, teacher, labels).item() > 0.0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [torch.bool, torch.int64])
def test_a_mask_equals_slicing(name, kind):
    student, teacher = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(15).view(3, 5) % 7
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    keep = mask.bool()
    student[~keep] = float("nan")
    student.requires_grad_()
    loss = call(name, student, teacher, labels.masked_fill(~keep, -100), mask=mask.to(kind))
    assert loss.item() == pytest.approx(
        call(name, student[keep], teacher[keep], labels[keep]).item(), rel=1e-6
    )
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient[keep].isfinite().all()
    assert gradient[keep].any()
    assert not gradient[~keep].any()


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_that_leaves_nothing(name):
    student = STUDENT.clone().requires_grad_()
    loss = call(name, student, TEACHER, LABELS, mask=torch.zeros(6))
    loss.backward()
    assert loss.item() == 0.0
    assert not student.grad.any()


@pytest.mark.parametrize("name", NAMES)
def test_one_output_is_a_regression(name):
    student, teacher = torch.tensor([[1.0], [2.0], [3.0], [5.0]]), torch.tensor([[1.0], [4.0], [3.0], [3.0]])
    assert call(name, student, teacher, torch.tensor([0.5, 1.0, 2.0, 2.5])).item() == pytest.approx(2.0)


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_goes_to_the_teacher(name):
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    call(name, student, teacher, LABELS).backward()
    assert teacher.grad is None
    assert student.grad.any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(name, kind):
    loss = call(name, STUDENT.to(kind), TEACHER.to(kind), LABELS)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(call(name, STUDENT, TEACHER, LABELS).item(), rel=3e-2)
    large = (1000 * STUDENT).to(kind).requires_grad_()
    loss = call(name, large, -large.detach(), LABELS)
    loss.backward()
    assert loss.isfinite()
    assert large.grad.isfinite().all()


@pytest.mark.parametrize("name", ["soft_cross_entropy", "dkd"])
def test_a_class_that_is_ruled_out_counts_nothing(name):
    """Both models give it a logit of -inf: as if it were not there."""
    ruled_out = torch.full((6, 1), float("-inf"))
    student, teacher = (torch.cat([logits, ruled_out], 1) for logits in (STUDENT, TEACHER))
    student.requires_grad_()
    loss = call(name, student, teacher, LABELS)
    loss.backward()
    assert loss.item() == pytest.approx(call(name, STUDENT, TEACHER, LABELS).item(), rel=1e-6)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name):
    student = STUDENT[:4].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: call(name, s, TEACHER[:4].double(), LABELS[:4]), student)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_that_do_not_go_together_are_named(name):
    with pytest.raises(DataError, match=r"\[2, 3\] and the teacher's \[2, 4\]"):
        call(name, torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2).long())
    with pytest.raises(DataError, match=r"mask has shape \[3\].*need \[2\]"):
        call(name, torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2).long(), mask=torch.ones(3))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, -100, 2], "label -100 is no class: the outputs have 5, 0 to 4.*mask"),
        ([0, 5, 2], "label 5 is no class"),
        ([0.0, 1.0, 2.0], "float32"),
        ([0, 1], r"labels have shape \[2\]"),
    ],
)
def test_dkd_needs_labels_that_are_classes(labels, message):
    with pytest.raises(DataError, match=message):
        losses.dkd(STUDENT[:3], TEACHER[:3], torch.tensor(labels))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("soft_cross_entropy", {"temperature": 0.0}),
        ("dkd", {"alpha": -1.0}),
        ("dkd", {"temperature": -2.0}),
        ("dist", {"gamma": -0.1}),
        ("dist", {"temperature": 0.0}),
    ],
)
def test_options_out_of_range_are_named(name, options):
    with pytest.raises(RecipeError, match=next(iter(options))):
        call(name, STUDENT, TEACHER, LABELS, **options)


@pytest.mark.parametrize("name", NAMES)
def test_the_name_means_the_function(name):
    assert losses.registry.get(name).build is getattr(losses, name)
    assert losses.registry.get(name).paper.startswith("https://arxiv.org/abs/")


@pytest.mark.parametrize("name", ["kd", "dkd"])
def test_standardized_logits_leave_out_classes_that_are_ruled_out(name):
    some = torch.tensor([0, 2, 4])
    out = torch.ones(TEACHER.shape[-1], dtype=torch.bool).index_fill(0, some, False)
    student, teacher = (logits.masked_fill(out, float("-inf")) for logits in (STUDENT, TEACHER))
    labels = torch.arange(len(STUDENT)) % len(some)
    found = call(name, student, teacher, some[labels], standardize=True)
    assert found.item() == pytest.approx(
        call(name, STUDENT[..., some], TEACHER[..., some], labels, standardize=True).item(), rel=1e-5
    )
    assert losses.standardized(student)[..., out].isneginf().all()
