"""Zeroing by bits against `masked_fill`, to the bit, for every type, order in memory and value."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lianzhi.codebook.masks import Masks
from lianzhi.codebook.zeroing import bits_of, zero_, zeroed

TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
STRANGE = torch.tensor([0.0, -0.0, 1.0, -2.5, float("inf"), float("-inf"), float("nan"), 1e-42])


def same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), dtype=st.sampled_from(TYPES), last=st.booleans(), mask_last=st.booleans())
def test_what_goes_is_zero_and_what_stays_is_the_same_to_the_bit(
    seed: int, dtype: torch.dtype, last: bool, mask_last: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    orders = {True: torch.channels_last, False: torch.contiguous_format}
    picked = torch.randint(len(STRANGE), (3, 2, 2, 2), generator=generator)
    values = STRANGE[picked].to(dtype).contiguous(memory_format=orders[last])
    keep = (torch.rand(3, 2, 2, 2, generator=generator) < 0.5).contiguous(memory_format=orders[mask_last])
    expected = values.masked_fill(~keep, 0.0)
    bits = bits_of(keep, values)
    assert bits.stride() == values.stride()
    assert same_bits(zeroed(values, bits), expected)
    zero_(values, bits)
    assert same_bits(values, expected)


def test_masks_follow_a_model_that_changes_its_order_and_its_type() -> None:
    layer = nn.Conv2d(2, 3, 3)
    keep = torch.rand(3, 2, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    masks = Masks(layer, {"weight": keep})
    for changed in (layer.to(memory_format=torch.channels_last), layer.double(), layer.bfloat16()):
        with torch.no_grad():
            changed.weight.fill_(float("inf"))
        masks.apply_(changed)
        assert torch.equal(changed.weight == 0, ~keep)
        changed.weight.grad = None
        (changed.weight * float("inf")).sum().backward()
        assert changed.weight.grad is not None
        assert torch.equal(changed.weight.grad.isinf(), keep)
        assert (changed.weight.grad[~keep] == 0).all()


def test_a_gradient_of_a_masked_gradient() -> None:
    layer = nn.Linear(2, 1, bias=False)
    Masks(layer, {"weight": torch.tensor([[True, False]])})
    (first,) = torch.autograd.grad((layer.weight**3).sum(), layer.weight, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), layer.weight)
    kept = layer.weight[0, 0].item()
    assert second.tolist() == [[pytest.approx(6 * kept), 0.0]]
