"""Losses on hidden states and attention: golden values by hand, masks, half precision, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import softmax
from torch import nn

from lianzhi.distill import losses
from lianzhi.distill.losses.relations import most_heads, relation
from lianzhi.errors import DataError, RecipeError

MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
LENGTHS = (5, 3, 1)


def numbers(*tensors):
    return [np.asarray(tensor, dtype=np.float64) for tensor in tensors]


def mse(student, teacher):
    return ((student - teacher) ** 2).mean()


def turned(student, teacher):
    student, teacher = (item / np.linalg.norm(item, axis=-1, keepdims=True) for item in (student, teacher))
    return mse(student, teacher)


def angle(student, teacher):
    lengths = np.linalg.norm(student, axis=-1) * np.linalg.norm(teacher, axis=-1)
    return (1 - (student * teacher).sum(-1) / lengths).mean()


def divergence(student, teacher):
    """KL of scores, summed over keys, the mean of the rest."""
    p, q = softmax(teacher), softmax(student)
    return (p * np.log(p / q)).sum(-1).mean()


def related(values, heads):
    """x·xᵀ/√d of (batch, tokens, width), by a loop over heads."""
    batch, tokens, width = values.shape
    size = width // heads
    found = np.zeros((batch, heads, tokens, tokens))
    for head in range(heads):
        part = values[..., head * size : (head + 1) * size]
        for sample in range(batch):
            found[sample, head] = part[sample] @ part[sample].T / np.sqrt(size)
    return found


def joined(values):
    """(batch, heads, tokens, size) as (batch, tokens, width), by a loop."""
    return np.concatenate([values[:, head] for head in range(values.shape[1])], axis=-1)


def minilm_by_hand(scores, values, other_scores, other_values):
    pairs = ([values[:, h] @ values[:, h].transpose(0, 2, 1) / np.sqrt(values.shape[-1])] for h in range(2))
    others = (
        [other_values[:, h] @ other_values[:, h].transpose(0, 2, 1) / np.sqrt(other_values.shape[-1])]
        for h in range(2)
    )
    relations = [divergence(a[0], b[0]) for a, b in zip(pairs, others, strict=True)]
    return divergence(scores, other_scores) + np.mean(relations)


def v2_by_hand(q, k, v, tq, tk, tv, heads=4):
    return sum(
        divergence(related(joined(a), heads), related(joined(b), heads))
        for a, b in ((q, tq), (k, tk), (v, tv))
    )


def hidden(width=8):
    return [torch.randn(3, 5, width)]


def attention():
    return [3 * torch.randn(3, 2, 5, 5)]


def by_heads(heads, size, count=1):
    return [torch.randn(3, heads, 5, size) for _ in range(count)]


# name: student's tensors, teacher's tensors, the equation, which axes hold tokens
CASES = {
    "hidden_mse": (hidden, hidden, mse),
    "embedding_mse": (hidden, hidden, mse),
    "patience": (hidden, hidden, turned),
    "cosine": (hidden, hidden, angle),
    "attention_mse": (attention, attention, mse),
    "attention_kl": (attention, attention, divergence),
    "minilm": (
        lambda: [*attention(), *by_heads(2, 4)],
        lambda: [*attention(), *by_heads(2, 6)],
        minilm_by_hand,
    ),
    "minilm_v2": (lambda: by_heads(2, 4, 3), lambda: by_heads(3, 4, 3), v2_by_hand),
}


def made(name):
    torch.manual_seed(7)
    student, teacher, equation = CASES[name]
    return getattr(losses, name), student(), teacher(), equation


def shortened(tensor, sample, length):
    """One sample without its padding; tokens are the axes of size 5."""
    part = tensor[sample : sample + 1]
    for axis in range(1, part.ndim):
        if tensor.shape[axis] == 5:
            part = part.narrow(axis, 0, length)
    return part


def spoilt(tensor):
    """NaN where nothing counts."""
    tensor = tensor.clone()
    for sample, length in enumerate(LENGTHS):
        for axis in range(1, tensor.ndim):
            if tensor.shape[axis] == 5 and length < 5:
                tensor[sample].narrow(axis - 1, length, 5 - length).fill_(float("nan"))
    return tensor


@pytest.mark.parametrize("name", CASES)
def test_golden(name):
    loss, student, teacher, equation = made(name)
    wanted = equation(*numbers(*student, *teacher))
    assert loss(*student, *teacher).item() == pytest.approx(wanted, rel=1e-5, abs=1e-7)
    assert loss(*student, *teacher, by_sample=True).item() == pytest.approx(wanted, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_a_mask_equals_slicing(name):
    loss, student, teacher, equation = made(name)
    parts = [
        equation(*numbers(*(shortened(tensor, sample, length) for tensor in [*student, *teacher])))
        for sample, length in enumerate(LENGTHS)
    ]
    counts = [length**2 for length in LENGTHS] if name == "attention_mse" else LENGTHS
    student, teacher = [spoilt(tensor) for tensor in student], [spoilt(tensor) for tensor in teacher]
    for kind in (torch.bool, torch.int64, torch.float32):
        mask = MASK.to(kind)
        by_tokens = loss(*student, *teacher, mask=mask).item()
        assert by_tokens == pytest.approx(np.average(parts, weights=counts), rel=1e-5)
        assert loss(*student, *teacher, mask=mask, by_sample=True).item() == pytest.approx(
            np.mean(parts), rel=1e-5
        )


@pytest.mark.parametrize("name", ["hidden_mse", "embedding_mse", "patience", "cosine"])
def test_a_mask_equals_picking_the_tokens(name):
    loss, (student,), (teacher,), _ = made(name)
    keep = MASK.bool()
    wanted = loss(student[keep], teacher[keep])
    torch.testing.assert_close(loss(student, teacher, mask=MASK), wanted)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_the_students_and_of_what_counts(name):
    loss, student, teacher, _ = made(name)
    student = [spoilt(tensor).requires_grad_() for tensor in student]
    teacher = [spoilt(tensor).requires_grad_() for tensor in teacher]
    loss(*student, *teacher, mask=MASK).backward()
    for tensor in teacher:
        assert tensor.grad is None
    for tensor in student:
        padded = tensor.detach().isnan()
        assert tensor.grad.isfinite().all()
        assert not tensor.grad[padded].any()
        assert tensor.grad[~padded].any()


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_right(name):
    loss, student, teacher, _ = made(name)
    student = [tensor.double().requires_grad_() for tensor in student]
    teacher = [tensor.double() for tensor in teacher]
    for by_sample in (False, True):
        assert torch.autograd.gradcheck(
            lambda *given, by_sample=by_sample: loss(*given, *teacher, mask=MASK, by_sample=by_sample),
            student,
            fast_mode=True,
        )


@pytest.mark.parametrize("name", CASES)
def test_zero_for_equal_tensors_and_positive_else(name):
    loss, student, teacher, _ = made(name)
    assert loss(*student, *student).item() == pytest.approx(0, abs=1e-6)
    assert loss(*teacher, *teacher, mask=MASK).item() == pytest.approx(0, abs=1e-6)
    assert loss(*student, *teacher).item() > 0.01


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(name, kind):
    loss, student, teacher, _ = made(name)
    half = [[tensor.to(kind) for tensor in side] for side in (student, teacher)]
    value = loss(*half[0], *half[1])
    assert value.dtype == torch.float32
    wanted = loss(*(tensor.float() for tensor in half[0]), *(tensor.float() for tensor in half[1]))
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5)
    large = [[tensor.sign() * 200 for tensor in side] for side in half]  # 200² · 5 · 8 is no float16
    assert loss(*large[0], *large[1], mask=MASK).isfinite()


@pytest.mark.parametrize("name", CASES)
def test_mixed_precision_changes_nothing(name):
    """Under autocast, which would multiply matrices in bfloat16, and give the projections' outputs in it."""
    loss, student, teacher, _ = made(name)
    rest = {"projection": torch.randn(8, 8)} if name in ("hidden_mse", "embedding_mse") else {}
    wanted = loss(*student, *teacher, mask=MASK, **rest)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(*student, *teacher, mask=MASK, **rest)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", CASES)
def test_parts_of_a_batch_give_the_gradient_of_the_whole(name):
    """With `by_sample`, however many tokens the parts have: what accumulation and processes rely on."""
    loss, student, teacher, _ = made(name)
    student = [tensor.requires_grad_() for tensor in student]
    whole = torch.autograd.grad(loss(*student, *teacher, mask=MASK, by_sample=True), student)
    total = sum(
        loss(*(t[part] for t in [*student, *teacher]), mask=MASK[part], by_sample=True) * size / 3
        for part, size in ((slice(0, 1), 1), (slice(1, 3), 2))
    )
    for one, other in zip(whole, torch.autograd.grad(total, student), strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_nothing_that_counts_is_zero(name):
    loss, student, teacher, _ = made(name)
    student = [tensor.requires_grad_() for tensor in student]
    for by_sample in (False, True):
        value = loss(*student, *teacher, mask=torch.zeros_like(MASK), by_sample=by_sample)
        assert value.item() == 0.0
        assert not any(gradient.any() for gradient in torch.autograd.grad(value, student))


@pytest.mark.parametrize("name", CASES)
def test_the_registry_has_it(name):
    entry = losses.registry.get(name)
    assert entry.build is getattr(losses, name)
    assert entry.paper.startswith("https://arxiv.org/abs/")
    assert entry.config(by_sample=True).by_sample
    with pytest.raises(RecipeError, match="by_sample"):
        entry.config(by_samples=True)


@pytest.mark.parametrize("name", ["hidden_mse", "embedding_mse"])
def test_a_projection_as_matrix_and_as_function(name):
    loss, linear = getattr(losses, name), nn.Linear(8, 12)
    (student,), (teacher,) = hidden(8), hidden(12)
    weight, bias = numbers(linear.weight.detach(), linear.bias.detach())
    values, wanted = numbers(student, teacher)
    value = loss(student, teacher, projection=linear)
    assert value.item() == pytest.approx(mse(values @ weight.T + bias, wanted), rel=1e-5)
    value.backward()
    assert linear.weight.grad.any()
    matrix = loss(student, teacher, projection=linear.weight.T)
    assert matrix.item() == pytest.approx(mse(values @ weight.T, wanted), rel=1e-5)
    half = loss(student.half(), teacher.half(), projection=linear.weight.T)
    assert half.item() == pytest.approx(matrix.item(), rel=1e-2)


def test_a_masked_projection_learns_from_what_counts_only():
    linear = nn.Linear(8, 12)
    (student,), (teacher,) = hidden(8), hidden(12)
    losses.hidden_mse(spoilt(student), spoilt(teacher), projection=linear, mask=MASK).backward()
    found = linear.bias.grad.clone()
    linear.zero_grad()
    keep = MASK.bool()
    losses.hidden_mse(student[keep], teacher[keep], projection=linear).backward()
    torch.testing.assert_close(found, linear.bias.grad)


def test_patience_of_layers_and_lengths_do_not_count():
    student, teacher = torch.randn(4, 3, 8), torch.randn(4, 3, 8)
    wanted = turned(*numbers(student, teacher))
    assert losses.patience(5 * student, 0.1 * teacher).item() == pytest.approx(wanted, rel=1e-5)


def test_impossible_scores_are_no_nan():
    """A causal model's scores carry -inf where it must not look."""
    student, teacher = (3 * torch.randn(2, 2, 4, 4) for _ in range(2))
    future = torch.ones(4, 4, dtype=torch.bool).triu(1)
    causal = [item.masked_fill(future, float("-inf")).requires_grad_() for item in (student, teacher)]
    value = losses.attention_kl(*causal)
    rows = [
        divergence(*numbers(student[..., row, : row + 1], teacher[..., row, : row + 1])) for row in range(4)
    ]
    assert value.item() == pytest.approx(np.mean(rows), rel=1e-5)
    value.backward()
    assert causal[0].grad.isfinite().all()


def test_relations_by_heads_and_side_by_side():
    values = torch.randn(3, 2, 5, 6)
    flat = torch.from_numpy(joined(values.numpy()))
    torch.testing.assert_close(relation(values), relation(flat, 2))
    np.testing.assert_allclose(relation(values, 4).numpy(), related(flat.numpy(), 4), atol=1e-5)
    torch.testing.assert_close(relation(flat), relation(flat, 1))


@pytest.mark.parametrize(
    ("student", "teacher", "wanted"),
    [(384, 312, 24), (384, 384, 48), (384, 768, 48), (768, 1024, 32), (7, 13, 1), (16, 16, 16)],
)
def test_relation_heads(student, teacher, wanted):
    assert most_heads(student, teacher) == wanted
    tensors = [torch.randn(1, 2, width) for width in (student, teacher)]
    automatic = losses.minilm_v2(*[tensors[0]] * 3, *[tensors[1]] * 3)
    chosen = losses.minilm_v2(*[tensors[0]] * 3, *[tensors[1]] * 3, relation_heads=wanted)
    assert automatic.item() == chosen.item()
    with pytest.raises(RecipeError, match="relation_heads"):
        losses.minilm_v2(*[tensors[0]] * 3, *[tensors[1]] * 3, relation_heads=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.hidden_mse(torch.zeros(2, 5, 8), torch.zeros(2, 4, 8)), r"\[2, 5, 8\].*\[2, 4, 8\]"),
        (lambda: losses.hidden_mse(torch.zeros(2, 8), torch.zeros(2, 6)), "projection from width 8 to 6"),
        (
            lambda: losses.hidden_mse(torch.zeros(2, 8), torch.zeros(2, 6), projection=torch.zeros(6, 8)),
            r"shape \[6, 8\].*need \[8, 6\]",
        ),
        (
            lambda: losses.hidden_mse(torch.zeros(2, 8), torch.zeros(2, 6), projection=nn.Linear(8, 7)),
            r"become \[2, 7\]",
        ),
        (
            lambda: losses.cosine(torch.zeros(2, 3, 8), torch.zeros(2, 3, 8), mask=torch.ones(2, 4)),
            r"mask has shape \[2, 4\]; it needs \[2, 3\]",
        ),
        (lambda: losses.cosine(torch.zeros(2, 8), torch.zeros(2, 6)), "states of one width"),
        (lambda: losses.patience(torch.zeros(2, 8), torch.zeros(2, 6)), "states of one width"),
        (lambda: losses.cosine(torch.zeros(8), torch.zeros(8)), r"\(batch, …, width\)"),
        (
            lambda: losses.attention_mse(torch.zeros(1, 2, 3, 3), torch.zeros(1, 4, 3, 3)),
            "minilm_v2 takes any numbers of heads",
        ),
        (
            lambda: losses.attention_kl(
                torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), mask=torch.ones(1, 3)
            ),
            "from the tokens to themselves",
        ),
        (
            lambda: losses.minilm_v2(
                *[torch.zeros(1, 3, 8)] * 3, *[torch.zeros(1, 3, 8)] * 3, relation_heads=5
            ),
            "width of 8 cannot be split into 5 relation heads",
        ),
        (
            lambda: losses.minilm_v2(*[torch.zeros(3, 8)] * 3, *[torch.zeros(1, 3, 8)] * 3),
            r"shape \[3, 8\]; they must be",
        ),
    ],
)
def test_shapes_that_do_not_go_together_are_named(call, message):
    with pytest.raises(DataError, match=message):
        call()


@pytest.mark.parametrize("name", ["cosine", "patience"])
def test_gradients_have_gradients_where_a_state_is_zero(name):
    student, teacher = torch.randn(2, 2, 3, 4, dtype=torch.float64).unbind()
    student[0, 2] = 0.0
    student.requires_grad_()
    loss = getattr(losses, name)(student, teacher)
    (gradient,) = torch.autograd.grad(loss, student, create_graph=True)
    (second,) = torch.autograd.grad((gradient * teacher).sum(), student)
    assert bool(gradient.isfinite().all())
    assert bool(second.isfinite().all())
    assert bool(second[0, :2].any())
