"""Observers: closed forms, invariants over the registry, and torch's percentile as oracle."""

import numpy as np
import pytest
import torch

from lianzhi.errors import RecipeError
from lianzhi.quantize.observers import Statistics, registry
from lianzhi.quantize.observers.entropy import divergence
from lianzhi.quantize.observers.moving_average import MovingAverage, moving_average
from lianzhi.quantize.observers.mse import mse, squared_error
from lianzhi.quantize.observers.percentile import Percentile, percentile
from lianzhi.quantize.scheme import Scheme

UINT8 = Scheme(8, signed=False, symmetric=False)


def seen_of(*batches):
    seen = Statistics()
    for batch in batches:
        seen.add_range(batch)
    for batch in batches:
        seen.add_counts(batch)
    return seen


def ranged(name, *batches, scheme=UINT8, **options):
    entry = registry.get(name)
    return entry.build(seen_of(*batches), scheme, entry.config(**options))


@pytest.mark.parametrize("name", registry.names())
@pytest.mark.parametrize("scheme", [UINT8, Scheme(8), Scheme(4)], ids=str)
def test_every_observer_stays_within_what_it_saw(name, scheme):
    torch.manual_seed(1)
    for values in (torch.randn(4000), torch.randn(4000).relu(), -torch.rand(4000), torch.rand(4000) + 3):
        low, high = ranged(name, values, scheme=scheme)
        assert np.isfinite([low, high]).all()
        assert low >= min(float(values.min()), 0) - 1e-6
        assert high <= max(float(values.max()), 0) + 1e-6
        if float(values.min()) >= 0:
            assert high > 0.2 * float(values.max())


@pytest.mark.parametrize("name", registry.names())
def test_every_observer_takes_a_constant(name):
    for constant in (0.0, 2.5, -1.5):
        low, high = ranged(name, torch.full((100,), constant))
        assert min(low, 0) <= constant + 1e-6
        assert max(high, 0) >= constant - 1e-6


@pytest.mark.parametrize("name", registry.names())
def test_every_observer_is_described(name):
    entry = registry.get(name)
    assert entry.summary
    assert entry.build.__doc__
    with pytest.raises(RecipeError, match="unknown option"):
        entry.config(no_such_option=1)


def test_histogram_counts_everything_once():
    batches = torch.randn(3, 1000).unbind()
    seen = seen_of(*batches)
    assert seen.counts.sum() == 3000
    expected, _ = np.histogram(torch.cat(batches).double().numpy(), bins=2048, range=(seen.low, seen.high))
    assert np.abs(seen.counts - expected).sum() <= 6  # values on the edge of two bins


def test_moving_average_by_hand():
    seen = Statistics(batches=[(-1.0, 1.0), (-3.0, 1.0), (-1.0, 5.0)])
    low, high = moving_average(seen, UINT8, MovingAverage(momentum=0.9))
    assert low == pytest.approx(0.9 * (0.9 * -1 + 0.1 * -3) + 0.1 * -1)
    assert high == pytest.approx(0.9 * 1 + 0.1 * 5)


def test_percentile_is_the_quantile():
    values = torch.randn(100_000)
    low, high = ranged("percentile", values, share=99.0)
    width = float(values.max() - values.min()) / 2048
    assert low == pytest.approx(float(values.quantile(0.005)), abs=2 * width)
    assert high == pytest.approx(float(values.quantile(0.995)), abs=2 * width)
    rectified = values.relu()
    low, high = ranged("percentile", rectified, share=99.9)
    assert low == 0
    assert high == pytest.approx(float(rectified.quantile(0.999)), abs=2 * width)
    assert percentile(seen_of(values), UINT8, Percentile(share=100)) == pytest.approx(
        (float(values.min()), float(values.max()))
    )


def test_mse_beats_every_other_range_of_its_kind():
    torch.manual_seed(2)
    values = torch.randn(20_000).relu()
    values[0] = 40.0
    scheme = Scheme(4, signed=False, symmetric=False)
    seen = seen_of(values)
    low, high = mse(seen, scheme)
    exact, ones = values.double().numpy(), np.ones(len(values))
    best = squared_error(exact, ones, low, high, scheme)
    tried = [squared_error(exact, ones, 0.0, 40.0 * share, scheme) for share in np.linspace(0.02, 1, 200)]
    assert best <= min(tried) * 1.02
    assert high < 20


def test_entropy_ignores_a_lone_outlier_and_zeros():
    torch.manual_seed(3)
    values = torch.randn(200_000).relu()
    values[0] = 100.0
    low, high = ranged("entropy", values)
    assert low == 0
    assert 3 < high < 20


def test_divergence_of_equal_distributions_is_zero():
    counts = np.random.default_rng(0).integers(1, 100, 2048).astype(float)
    assert divergence(counts, 256, 256) > 0  # clips
    assert divergence(np.concatenate([counts[:256], np.zeros(1792)]), 256, 256) == pytest.approx(0)
