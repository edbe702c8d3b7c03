"""k-means of numbers: closed forms, scikit-learn and brute force as oracles, and properties."""

from __future__ import annotations

import itertools
import time
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lianzhi.codebook import kmeans
from lianzhi.codebook import optimal as optimal_module
from lianzhi.codebook.kmeans import assign, boundaries, cluster
from lianzhi.codebook.optimal import optimal
from lianzhi.errors import DataError, RecipeError

numbers = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60)


def inertia(values: torch.Tensor, centroids: torch.Tensor) -> float:
    return float((values.double()[:, None] - centroids.double()).square().amin(1).sum())


def best_of_all(values: list[float], clusters: int) -> float:
    """The least error over all ways to cut the sorted values."""
    data = np.sort(np.array(values, dtype=np.float64))
    cuts = itertools.combinations(range(1, len(data)), min(clusters, len(data)) - 1)
    return min(sum(((part - part.mean()) ** 2).sum() for part in np.split(data, list(cut))) for cut in cuts)


def test_one_cluster_is_the_mean():
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(cluster(values, 1), values.double().mean().float()[None])


@pytest.mark.parametrize("init", kmeans.INITS)
def test_well_separated_values_are_found_whatever_the_start(init):
    values = torch.tensor([0.0, 1.0, 100.0, 101.0, 102.0, 500.0])
    found = cluster(values, 3, init=init, seed=3)
    assert len(found) <= 3
    if init != "random":
        assert torch.equal(found, torch.tensor([0.5, 101.0, 500.0]))


@pytest.mark.parametrize("clusters", [3, 15, 31])
@pytest.mark.parametrize("init", ["linear", "density"])
def test_the_error_is_no_larger_than_scikit_learns_from_the_same_start(init, clusters):
    from sklearn.cluster import KMeans

    values = torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    start = kmeans.INITS[init](kmeans.Sorted(values), clusters, torch.Generator())
    peer = KMeans(clusters, init=start.numpy()[:, None], n_init=1, max_iter=300, tol=0)
    peer.fit(values.double().numpy()[:, None])
    assert inertia(values, cluster(values, clusters, init=init)) <= peer.inertia_ * (1 + 1e-4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=9), st.integers(1, 5))
def test_optimal_is_the_best_of_all_cuts(values, clusters):
    data = torch.tensor(values)
    best = best_of_all(values, clusters)
    assert inertia(data, cluster(data, clusters, init="optimal")) <= best * (1 + 1e-5) + 1e-6


def test_optimal_of_weighted_values_is_optimal_of_repeated_ones():
    values, counts = torch.tensor([0.0, 1.0, 3.0, 3.5, 9.0]).double(), torch.tensor([5, 1, 2, 7, 1])
    repeated = values.repeat_interleave(counts)
    ours = optimal(values, counts.double(), 3)
    assert torch.allclose(ours, optimal(repeated, torch.ones(len(repeated)), 3))


def test_optimal_of_a_histogram_beats_every_other_start():
    values = torch.randn(50_000, generator=torch.Generator().manual_seed(2)) ** 3
    errors = {init: inertia(values, cluster(values, 15, init=init)) for init in kmeans.INITS}
    assert errors["optimal"] <= min(errors.values()) * (1 + 1e-6), errors


def test_optimal_is_the_best_of_any_number_of_clusters():
    values = torch.randn(40, generator=torch.Generator().manual_seed(10)).double().sort().values ** 3
    data = values.numpy()
    error = np.array([[data[i:j].var() * (j - i) if i < j else np.inf for j in range(41)] for i in range(40)])
    best = error[0]  # of the first j values
    for clusters in range(1, 40):
        found = optimal(values, torch.ones(40), clusters)
        assert len(found) == clusters
        assert inertia(values, found) == pytest.approx(best[-1], rel=1e-9)
        best = (best[:-1, None] + error).min(0)


@pytest.mark.parametrize(("clusters", "most"), [(2, 3), (16, 75), (128, 160), (255, 4)])
def test_optimal_computes_few_errors_of_slices(monkeypatch, clusters, most):
    """At most `most` for each number: few clusters need few steps, and many leave few places to each."""
    computed, errors = [], optimal_module._errors

    def counted(*ends):
        computed.append(errors(*ends).size)
        return errors(*ends)

    monkeypatch.setattr(optimal_module, "_errors", counted)
    values = torch.randn(256, generator=torch.Generator().manual_seed(11)).double().sort().values
    assert len(optimal(values, torch.ones(256), clusters)) == clusters
    assert sum(computed) <= most * 256


@pytest.mark.parametrize("outlier", [0.0, 50.0, -1e9, 1e30])
@pytest.mark.parametrize("clusters", [15, 255, 4095])
def test_optimal_of_many_values_gives_all_clusters_and_is_no_worse_than_linear(clusters, outlier):
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(7)) * 0.02
    values[0] = outlier
    found, linear = (cluster(values, clusters, init=init) for init in ("optimal", "linear"))
    assert len(found) == clusters
    errors = [
        (values - each[assign(values, each).long()]).double().square().sum() for each in (found, linear)
    ]
    assert errors[0] <= errors[1] * (1 + 1e-6)


@pytest.mark.parametrize("outlier", [-1e3, -1e5, 1e9, -1e20])
def test_optimal_is_the_best_of_all_cuts_beside_values_far_away(outlier):
    values = torch.randn(8, generator=torch.Generator().manual_seed(8))
    both = torch.cat([values, torch.full((40,), outlier)])
    found = cluster(both, 4, init="optimal")
    assert inertia(values, found) <= best_of_all(values.tolist(), 3) * (1 + 1e-5)
    assert found.abs().max() == abs(outlier)


def test_k_means_plus_plus_draws_from_the_tails_of_many_values():
    body = torch.rand(100_000, generator=torch.Generator().manual_seed(9))
    tail = torch.tensor([-3e4, -2e4, -1e4, 1e4, 2e4, 3e4])
    start = kmeans.INITS["kmeans++"](
        kmeans.Sorted(torch.cat([body, tail])), 20, torch.Generator().manual_seed(0)
    )
    assert set(tail.tolist()) <= set(start.tolist())


@example([0.0, 0.0, 1.0, 2.0, -1.0, -1.0229478789571165e-43], 4, "density")  # lost beside larger values
@settings(max_examples=100, deadline=None)
@given(numbers, st.integers(1, 20), st.sampled_from(sorted(kmeans.INITS)))
def test_centroids_are_sorted_distinct_and_inside(values, clusters, init):
    data = torch.tensor(values)
    found = cluster(data, clusters, init=init)
    assert 1 <= len(found) <= clusters
    assert found.dtype == torch.float32
    assert bool((found.diff() > 0).all())
    assert data.min() <= found[0] <= found[-1] <= data.max()


@settings(max_examples=100, deadline=None)
@given(numbers)
def test_as_many_clusters_as_values_is_exact(values):
    data = torch.tensor(values)
    found = cluster(data, 60)
    assert torch.equal(found[assign(data, found)], data + 0.0)


@settings(max_examples=100, deadline=None)
@given(numbers, st.integers(2, 12))
def test_every_value_goes_to_its_nearest_centroid(values, clusters):
    data = torch.tensor(values)
    found = cluster(data, clusters)
    distance = (data.double()[:, None] - found.double()).abs()
    assert torch.equal(distance.gather(1, assign(data, found).long()[:, None])[:, 0], distance.amin(1))


@pytest.mark.parametrize("copies", [1, 40])
@pytest.mark.parametrize("outlier", [1e3, 1e9, 1e10, 1e15, 1e30, 3e38])
@pytest.mark.parametrize("init", ["linear", "density", "kmeans++", "optimal"])
def test_an_outlier_of_either_sign_takes_one_cluster_and_leaves_the_others_theirs(init, outlier, copies):
    values = torch.randn(5000, generator=torch.Generator().manual_seed(6)) * 0.02
    rest = values[copies:]
    values[:copies] = outlier
    found = cluster(values, 63, init=init)
    assert len(found) == 63
    assert found[-1] == values[0]
    if init != "kmeans++":  # which draws others
        assert torch.allclose(cluster(-values, 63, init=init), -found.flip(0), rtol=1e-5, atol=1e-8)
    assert inertia(rest, found) <= 1.2 * inertia(rest, cluster(rest, 62, init=init))


@settings(max_examples=100, deadline=None)
@given(numbers, st.integers(1, 12), st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_sums_of_slices_are_those_of_exact_numbers(values, clusters, outlier):
    data = torch.tensor([*values, outlier, outlier])
    centroids = kmeans.INITS["density"](kmeans.Sorted(data), clusters, torch.Generator()).double()
    slices = kmeans.Sorted(data).slices(centroids)
    codes = assign(data, centroids.float())
    for code in range(clusters):
        inside = [Fraction(value) for value in data[codes == code].tolist()]
        assert slices.counts[code] == len(inside)
        if inside:
            mean = sum(inside) / len(inside)
            error = sum((value - mean) ** 2 for value in inside)
            size = sum(abs(value) for value in inside)
            assert abs(Fraction(float(slices.sums[code])) - sum(inside)) <= size * Fraction(1e-13)
            found = Fraction(float(slices.errors()[code]))
            assert abs(found - error) <= sum(value**2 for value in inside) * Fraction(1e-13)
            if min(inside) == max(inside):
                assert found == 0


def test_neighbouring_floats_stay_apart():
    low = torch.tensor(1.0)
    high = torch.nextafter(low, torch.tensor(2.0))
    pair = torch.stack([low, high])
    assert assign(pair, pair).tolist() == [0, 1]
    assert boundaries(pair.double()).tolist() == [high.item()]


def test_sums_in_blocks_are_the_sums_of_slices():
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(3))
    data = kmeans.Sorted(values)
    index = torch.tensor([0, 1, 1023, 1024, 1025, 5000, 10_000])
    expected = torch.stack([data.values[:end].double().sum() for end in index])
    sums = data.sums_before(index)[:, 0]
    assert torch.allclose(sums - sums[0], expected, rtol=1e-12, atol=1e-9)


def test_means_are_at_rest():
    values = torch.randn(30_000, generator=torch.Generator().manual_seed(4))
    found = cluster(values, 15, iterations=5000)
    codes = assign(values, found)
    means = torch.stack([values[codes == code].double().mean() for code in range(len(found))])
    assert torch.allclose(found.double(), means, atol=1e-6)
    assert len(found) == 15  # clusters that were empty have found work


def test_the_order_and_the_type_of_values_do_not_matter():
    values = torch.randn(3000, generator=torch.Generator().manual_seed(5))
    mixed = values[torch.randperm(3000)]
    assert torch.equal(cluster(values, 7), cluster(mixed, 7))
    assert torch.equal(cluster(values.bfloat16(), 7), cluster(values.bfloat16().double(), 7))


def test_the_values_are_left_as_they_are():
    values = torch.tensor([3.0, 1.0, 2.0])
    cluster(values, 2)
    assert values.tolist() == [3.0, 1.0, 2.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_numbers_are_refused(bad):
    with pytest.raises(DataError, match="1 of 3 values"):
        cluster(torch.tensor([1.0, bad, 2.0]), 2)


def test_values_beyond_float32_are_refused_as_such():
    with pytest.raises(DataError, match="1 of 3 values are beyond float32"):
        cluster(torch.tensor([1.0, 1e300, 2.0], dtype=torch.float64), 2)


def test_values_that_are_all_too_small_for_float32_are_refused_as_such():
    tiny = torch.tensor([1e-50, 2e-50, 3e-39], dtype=torch.float64)
    for values in (tiny, -tiny, tiny[:2]):
        with pytest.raises(
            DataError, match=r"all \d values are below 1.2e-38, too small for float32.*scale them up"
        ):
            cluster(values, 2)
    assert torch.equal(cluster(torch.zeros(3, dtype=torch.float64), 2), torch.zeros(1))
    denormal = torch.tensor([2.0**-140, 2.0**-141])
    assert torch.equal(cluster(denormal.double(), 2), denormal.flip(0))  # float32 has them
    beside = torch.cat([tiny, torch.tensor([1.0, 2.0], dtype=torch.float64)])
    assert torch.equal(cluster(beside, 3), torch.tensor([0.0, 1.0, 2.0]).clamp(min=1e-39))


def test_bad_calls_are_refused():
    with pytest.raises(RecipeError, match="did you mean 'linear'"):
        cluster(torch.ones(3), 2, init="linaer")
    with pytest.raises(RecipeError, match="clusters=0"):
        cluster(torch.ones(3), 0)
    with pytest.raises(DataError, match=r"one-dimensional.*\(2, 2\)"):
        cluster(torch.ones(2, 2), 2)
    with pytest.raises(DataError, match="int64"):
        cluster(torch.ones(2, dtype=torch.int64), 2)
    assert len(cluster(torch.ones(0), 2)) == 0


@pytest.mark.slow
def test_a_hundred_million_weights_in_under_a_minute():
    values = torch.randn(103_000_000, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    assert len(cluster(values, 31)) == 31
    assert time.perf_counter() - start < 60
