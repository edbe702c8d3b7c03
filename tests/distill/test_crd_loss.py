"""The loss `crd`: golden values by hand, and what must hold whatever the embeddings are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lianzhi.distill import losses
from lianzhi.errors import DataError, RecipeError


def directions(seed: int, *shape: int) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values / values.norm(dim=-1, keepdim=True)


def by_hand(
    anchors, positives, negatives, mask=None, *, temperature=0.07, samples=None, normalizer=1.0
) -> float:
    """The probabilities h as the paper writes them, in double precision, one pair at a time."""
    anchors, positives, negatives = (np.asarray(x, np.float64) for x in (anchors, positives, negatives))
    count = negatives.shape[-2]
    rest = normalizer * count / (samples or count)
    total = 0.0
    for row, (anchor, positive) in enumerate(zip(anchors, positives, strict=True)):
        e = math.exp(anchor @ positive / temperature)
        total -= math.log(e / (e + rest))
        others = negatives if negatives.ndim == 2 else negatives[row]
        keep = [True] * count if mask is None else [bool(value) for value in mask[row]]
        parts = []
        for other, kept in zip(others, keep, strict=True):
            e = math.exp(anchor @ other / temperature)
            if kept:
                parts.append(-math.log(1 - e / (e + rest)))
        total += count * np.mean(parts)
    return total / len(anchors)


@pytest.mark.parametrize("shape", [(7, 6), (4, 7, 6)])
@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.5}, {"samples": 100}, {"samples": 100, "normalizer": 250.0}]
)
def test_golden(shape, options):
    anchors, positives, negatives = directions(1, 4, 6), directions(2, 4, 6), directions(3, *shape)
    wanted = by_hand(anchors, positives, negatives, **options)
    assert losses.crd(anchors, positives, negatives, **options).item() == pytest.approx(wanted, rel=1e-5)


def test_golden_with_a_mask():
    anchors, positives, negatives = directions(1, 3, 6), directions(2, 3, 6), directions(3, 4, 6)
    mask = torch.tensor([[1, 1, 0, 1], [0, 0, 1, 0], [1, 1, 1, 1]]).bool()
    wanted = by_hand(anchors, positives, negatives, mask, samples=50)
    assert losses.crd(anchors, positives, negatives, mask=mask, samples=50).item() == pytest.approx(
        wanted, rel=1e-5
    )
    whole = losses.crd(anchors, positives, negatives, samples=50).item()
    assert losses.crd(
        anchors, positives, negatives, mask=torch.ones(3, 4), samples=50
    ).item() == pytest.approx(whole)


def test_a_number_that_was_worked_out_on_paper():
    """e = exp(0) = 1 everywhere, K = 3 of M = 6: h = 1 / (1 + 1/2) = 2/3; -ln(2/3) - 3 ln(1/3)."""
    zero = torch.zeros(2, 4)
    loss = losses.crd(zero, zero, torch.zeros(3, 4), samples=6)
    assert loss.item() == pytest.approx(-math.log(2 / 3) - 3 * math.log(1 / 3), rel=1e-6)


def test_it_falls_towards_the_positive_and_away_from_the_negatives():
    anchor, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    near = losses.crd(anchor, anchor, other)
    assert near.item() < losses.crd(anchor, other, other).item()
    assert near.item() < losses.crd(anchor, anchor, anchor).item()


def test_what_is_masked_for_all_may_be_nan():
    anchors, negatives = directions(1, 3, 5).requires_grad_(), directions(2, 4, 5)
    mask = torch.ones(3, 4)
    mask[:, 1] = 0
    wanted = losses.crd(anchors, anchors.detach(), negatives, mask=mask)
    (gradient,) = torch.autograd.grad(wanted, anchors)
    negatives[1] = float("nan")
    for each in (negatives, negatives.expand(3, 4, 5)):
        found = losses.crd(anchors, anchors.detach(), each, mask=mask)
        assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
        assert torch.allclose(torch.autograd.grad(found, anchors)[0], gradient, atol=1e-6)


def test_gradients_go_to_the_anchors_only():
    tensors = [directions(seed, 3, 5).double().requires_grad_() for seed in range(3)]
    anchors, positives, negatives = tensors
    losses.crd(anchors, positives, negatives, temperature=0.5).backward()
    assert anchors.grad.any()
    assert positives.grad is None
    assert negatives.grad is None
    assert torch.autograd.gradcheck(lambda x: losses.crd(x, positives, negatives, temperature=0.5), anchors)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_does_not_overflow(kind):
    """exp(1 / 0.07) is 1.6 million, beyond float16, and exp(1 / 0.005) is beyond float32."""
    anchors, negatives = directions(1, 3, 8), directions(2, 5, 8)
    loss = losses.crd(anchors.to(kind), anchors.to(kind), negatives.to(kind))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(by_hand(anchors, anchors, negatives), rel=5e-2)
    assert losses.crd(anchors, anchors, negatives, temperature=0.005).isfinite()


@pytest.mark.parametrize(
    ("shapes", "mask", "message"),
    [
        (((2, 3), (2, 4), (5, 3)), None, r"anchors have shape \[2, 3\] and positives \[2, 4\]"),
        (((2, 3), (2, 3), (5, 4)), None, r"negatives have shape \[5, 4\]"),
        (((2, 3), (2, 3), (3, 5, 3)), None, r"negatives have shape \[3, 5, 3\]"),
        (((2, 3), (2, 3), (0, 3)), None, r"at least one"),
        (((2, 3), (2, 3), (5, 3)), (2, 4), r"the mask has shape \[2, 4\].*\[2, 5\]"),
    ],
)
def test_shapes_that_do_not_go_together_are_named(shapes, mask, message):
    with pytest.raises(DataError, match=message):
        losses.crd(*(torch.zeros(shape) for shape in shapes), mask=None if mask is None else torch.ones(mask))


def test_wrong_options_are_named():
    with pytest.raises(RecipeError, match="temperature"):
        losses.registry.get("crd").config(temperature=0)
    with pytest.raises(RecipeError, match="temperature"):
        losses.crd(*[torch.zeros(1, 2)] * 3, temperature=-1.0)
    with pytest.raises(DataError, match="samples is 0"):
        losses.crd(*[torch.zeros(1, 2)] * 3, samples=0)
