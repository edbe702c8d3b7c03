"""Convolutions of small maps as products: the same numbers, only where they pay, only where the loop is asked for bf16."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fake import FakeTask
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lianzhi import train
from lianzhi.train import precision, small_maps


def gradients(convolution: nn.Conv2d, maps: Tensor, within: Any) -> list[Tensor]:
    """The outputs, and gradients of a weighted sum of them by inputs, weights and biases."""
    given = maps.clone().requires_grad_()
    with within:
        outputs = convolution(given)
    weighted = (outputs * torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view_as(outputs)).sum()
    return [outputs, *torch.autograd.grad(weighted, [given, *convolution.parameters()])]


@settings(deadline=None)
@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    samples=st.integers(0, 3),
    outputs=st.integers(1, 5),
    bias=st.booleans(),
    last=st.booleans(),
)
def test_the_product_is_the_convolution_and_so_are_its_gradients(
    rows: int, columns: int, samples: int, outputs: int, bias: bool, last: bool
) -> None:
    layout = torch.channels_last if last else torch.contiguous_format
    layer = nn.Conv2d(7, outputs, 3, padding=1, bias=bias).double().to(memory_format=layout)
    maps = torch.randn(samples, 7, rows, columns, dtype=torch.float64).to(memory_format=layout)
    expected = gradients(layer, maps, torch.enable_grad())
    layer.forward = lambda maps: small_maps.as_product(maps, layer.weight, layer.bias)  # type: ignore[method-assign]
    for mine, theirs in zip(gradients(layer, maps, torch.enable_grad()), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """A list that grows by the shape of the maps of every convolution that is computed as a product."""
    seen, real = [], small_maps.as_product

    def counted(maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        seen.append(tuple(maps.shape))
        return real(maps, weight, bias)

    monkeypatch.setattr(small_maps, "as_product", counted)
    return seen


@pytest.mark.parametrize(
    ("layer", "side", "taken"),
    [
        (nn.Conv2d(256, 4, 3, padding=1), 4, True),
        (nn.Conv2d(256, 4, 3, 1, 1, bias=False), 1, True),
        (nn.Conv2d(256, 4, 3, padding=1), 5, False),
        (nn.Conv2d(255, 4, 3, padding=1), 4, False),
        (nn.Conv2d(256, 4, 3, padding=0), 4, False),
        (nn.Conv2d(256, 4, 3, padding="same"), 4, False),
        (nn.Conv2d(256, 4, 3, padding=1, stride=2), 4, False),
        (nn.Conv2d(256, 4, 3, padding=1, dilation=2), 4, False),
        (nn.Conv2d(256, 4, 3, padding=1, padding_mode="circular"), 4, False),
        (nn.Conv2d(512, 4, 3, padding=1, groups=2), 4, False),
        (nn.Conv2d(256, 4, 1), 4, False),
    ],
)
def test_only_convolutions_that_gain_are_taken(
    layer: nn.Conv2d, side: int, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, maps = products(monkeypatch), torch.randn(2, layer.in_channels, side, side)
    expected = gradients(layer, maps, torch.enable_grad())
    found = gradients(layer, maps, small_maps.SmallMaps())
    assert seen == ([tuple(maps.shape)] if taken else [])
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pair", [1, (1, 1), [1, 1]])
def test_a_model_may_give_its_numbers_as_lists(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = products(monkeypatch)
    maps, weight = torch.randn(2, 256, 2, 2), torch.randn(4, 256, 3, 3)
    expected = nn.functional.conv2d(maps, weight, None, pair, pair, pair, 1)
    with small_maps.SmallMaps():
        found = nn.functional.conv2d(maps, weight, None, pair, pair, pair, 1)
    assert len(seen) == 1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("tiles", "kind", "taken"), [(True, "bf16", 2), (False, "bf16", 0), (True, "f32", 0)]
)
def test_the_loop_takes_them_in_bf16_with_tiles(
    tiles: bool, kind: str, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = products(monkeypatch)
    monkeypatch.setattr(precision, "has_amx", lambda: tiles)
    wide = [nn.Conv2d(256, 256, 3, padding=1), nn.Conv2d(256, 4, 3, padding=1)]
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(256), nn.Unflatten(1, (256, 1, 1)), *wide, nn.Flatten())
    task = FakeTask(samples=8)
    model(task.parts["train"][0])
    train.fit(model, task, train.TrainOptions(epochs=1, batch_size=8, precision=kind, keep="last"))
    assert len(seen) == taken


def test_models_without_such_a_convolution_are_told_apart() -> None:
    small = nn.Sequential(nn.Conv2d(3, 255, 3, padding=1), nn.Conv2d(255, 4, 3, padding=1))
    assert not small_maps.works_on_small_maps(small)
    assert small_maps.works_on_small_maps(nn.Sequential(small, nn.Conv2d(256, 2, 3, padding=1)))
