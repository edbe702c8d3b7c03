"""The guide's table of what bits and pruned weights cost: what k-means and entropy give for a normal distribution."""

import functools
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from lianzhi.codebook import huffman, kmeans
from lianzhi.codebook.masks import magnitude_mask
from lianzhi.codebook.rated import rated

DOCS = Path(__file__).parents[2] / "docs"
WEIGHTS = torch.randn(100_000, generator=torch.Generator().manual_seed(0))


@functools.cache
def cost(kept: float, bits: int) -> tuple[float, float]:
    """Bits a weight, and the share of the sum of squares that is lost."""
    stays = WEIGHTS[magnitude_mask(WEIGHTS, 1 - kept)]
    centroids = kmeans.cluster(stays, 2**bits - 1)
    codes = kmeans.assign(stays, centroids).long()
    counts = np.append(torch.bincount(codes).numpy(), len(WEIGHTS) - len(stays))
    apart = (stays - centroids[codes]).square().sum() + WEIGHTS.square().sum() - stays.square().sum()
    return huffman.entropy(counts) / len(WEIGHTS), float(apart / WEIGHTS.square().sum())


@pytest.mark.parametrize("page", ["deep_compression.md", "zh/deep_compression.md"])
def test_the_table_is_what_comes_out(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) % \|((?: [\d.]+, [\d.]+ % \|){3})$", text, re.M)
    assert [int(kept) for kept, _ in rows] == [100, 75, 50, 33, 25, 12]
    for kept, cells in rows:
        for bits, (size, lost) in zip((2, 3, 4), re.findall(r"([\d.]+), ([\d.]+) %", cells), strict=True):
            found = cost(int(kept) / 100, bits)
            assert float(size) == pytest.approx(found[0], abs=0.006)
            assert float(lost) == pytest.approx(100 * found[1], abs=0.06)


def test_what_the_guide_concludes() -> None:
    """All with 3 bits lose less than a half with 4, in fewer bits; a third with 3 less than a quarter with 4 in as many."""
    (all_size, all_lost), (half_size, half_lost) = cost(1, 3), cost(0.5, 4)
    assert all_size < half_size
    assert all_lost < 0.62 * half_lost
    (third_size, third_lost), (quarter_size, quarter_lost) = cost(0.33, 3), cost(0.25, 4)
    assert third_lost < 0.75 * quarter_lost
    assert third_size < 1.05 * quarter_size


@pytest.mark.parametrize("page", ["deep_compression.md", "zh/deep_compression.md"])
def test_the_row_of_a_rate_is_what_comes_out(page: str) -> None:
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if " 0.83 |" in line)
    sizes, shared, of_a_rate = (
        [float(number) for number in re.findall(r"[\d.]+(?= [%|])", lines[start + row])] for row in (0, 2, 3)
    )
    assert len(sizes) == len(shared) == len(of_a_rate) == 5
    for size, lost, alike in zip(sizes, of_a_rate, shared, strict=True):
        levels = rated(WEIGHTS, size)
        apart = (levels.nearest(WEIGHTS) - WEIGHTS).square().sum() / WEIGHTS.square().sum()
        assert lost == pytest.approx(100 * float(apart), abs=0.06)
        known = [cost(kept, bits) for kept in (1.0, 0.75, 0.5, 0.33, 0.25, 0.12) for bits in (2, 3, 4)]
        assert any(
            abs(bits - size) < 0.006 and alike == pytest.approx(100 * loss, abs=0.06) for bits, loss in known
        )
