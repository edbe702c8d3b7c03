"""Crops and flips against a loop over samples, and the same in any company."""

import numpy as np
import pytest

from lianzhi.tasks.augmentation import Augmentation, Draw, augment


def by_hand(image, identity, draw):
    """One sample, the slow way."""
    pad = draw.how.padding
    height, width = image.shape[1:]
    top, left = (int(value[0]) for value in draw.shifts(np.array([identity])))
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
    cropped = padded[:, top : top + height, left : left + width]
    return cropped[:, :, ::-1] if draw.flips(np.array([identity]))[0] else cropped


@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_the_loop(padding, flip, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (40, channels, 9, 7), dtype=np.uint8)
    before = pixels.copy()
    draw = Draw(Augmentation(padding, flip), seed=5, epoch=2)
    ids = np.arange(1000, 1040)
    found = augment(pixels, ids, draw)
    assert np.array_equal(found, [by_hand(image, i, draw) for image, i in zip(pixels, ids, strict=True)])
    assert np.array_equal(pixels, before)


def test_every_shift_and_both_sides_occur():
    draw = Draw(Augmentation(padding=2), seed=0, epoch=0)
    ids = np.arange(2000)
    assert set(zip(*(value.tolist() for value in draw.shifts(ids)), strict=True)) == {
        (a, b) for a in range(5) for b in range(5)
    }
    assert 0.45 < draw.flips(ids).mean() < 0.55


def test_boxes_lie_inside_and_keep_their_share():
    draw = Draw(Augmentation(min_area=0.25), seed=0, epoch=0)
    ids = np.arange(5000)
    heights, widths = 100 + ids % 80, 300 - ids % 150
    left, top, right, bottom = draw.boxes(ids, heights, widths).T
    inside = (left >= 0) & (top >= 0) & (right <= widths) & (bottom <= heights)
    assert inside.all()
    area = (right - left) * (bottom - top) / np.minimum(heights, widths) ** 2
    assert 0.2 < area.min() < 0.3
    assert area.max() <= 4 / 3
    aspect = (right - left) / (bottom - top)
    assert 0.7 < aspect.min() < 0.8
    assert 1.25 < aspect.max() < 1.4
