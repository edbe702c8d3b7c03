"""Values under a bound on their codes' entropy: against the best quantizers known, k-means, and the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy.stats import norm
from torch import nn

import lianzhi as lz
from lianzhi.codebook import kmeans, moving
from lianzhi.codebook.masks import magnitude_mask
from lianzhi.codebook.merging import entropy_of
from lianzhi.codebook.rated import MOST, intervals, rated
from lianzhi.codebook.rated_moving import RatedMoving
from lianzhi.codebook.sharing import bake, share
from lianzhi.errors import DataError, RecipeError

NORMAL = torch.randn(400_000, generator=torch.Generator().manual_seed(0))


def entropy(codes: torch.Tensor) -> float:
    return entropy_of(torch.bincount(codes.flatten().long()).double() / codes.numel())


def error(values: torch.Tensor, found: torch.Tensor) -> float:
    return float((values - found).square().mean() / values.square().mean())


@pytest.mark.parametrize("rate", [0.3, 0.8, 1.0, 1.5, 2.0, 3.0, 4.5])
def test_the_rate_is_met_and_zero_is_a_value(rate):
    levels = rated(NORMAL, rate)
    assert entropy(levels.assign(NORMAL)) == pytest.approx(levels.entropy, abs=1e-9)
    assert rate - 0.01 <= levels.entropy <= rate
    assert 0.0 in levels.centroids.tolist()
    assert len(levels.centroids) <= MOST
    assert bool((levels.centroids.diff() > 0).all())
    codes = levels.assign(NORMAL).long()
    for index, centroid in enumerate(levels.centroids.tolist()):
        mean = NORMAL[codes == index].double().mean().item()
        assert centroid == pytest.approx(mean if centroid else 0.0, abs=0.03)  # they are not quite settled


@pytest.mark.parametrize("rate", [1.0, 2.0])
def test_no_even_quantizer_of_a_normal_distribution_is_better(rate):
    """An even grid with a zero interval of any width, its values the means: the best of them, by SciPy."""

    def quantizer(zone: float, step: float) -> tuple[float, float]:
        edges = np.append(zone + step * np.arange(40), np.inf)
        shares, moments = norm.sf(edges[:-1]) - norm.sf(edges[1:]), norm.pdf(edges[:-1]) - norm.pdf(edges[1:])
        some = shares > 1e-12
        every = np.append(2 * norm.cdf(zone) - 1, np.repeat(shares[some], 2))
        return float(-(every * np.log2(every)).sum()), float(
            1 - 2 * (moments[some] ** 2 / shares[some]).sum()
        )

    errors = []
    for step in np.linspace(0.2, 3, 141):
        if quantizer(1e-3, step)[0] > rate:
            zone = optimize.brentq(lambda zone, step=step: quantizer(zone, step)[0] - rate, 1e-3, 4)
            errors.append(quantizer(zone, step)[1])
    levels = rated(NORMAL, rate)
    assert error(NORMAL, levels.nearest(NORMAL)) == pytest.approx(min(errors), rel=0.02)


@pytest.mark.parametrize(("kept", "bits"), [(1.0, 2), (1.0, 4), (0.5, 3), (0.33, 3), (0.12, 3)])
def test_of_as_many_bits_k_means_loses_more(kept, bits):
    pruned = NORMAL * magnitude_mask(NORMAL, 1 - kept)
    stays = pruned[pruned != 0]
    centroids = kmeans.cluster(stays, 2**bits - 1)
    codes = torch.where(pruned == 0, 0, kmeans.assign(pruned, centroids) + 1)
    shared = torch.where(pruned == 0, 0, centroids[kmeans.assign(pruned, centroids).long()])
    levels = rated(NORMAL, entropy(codes))
    assert error(NORMAL, levels.nearest(NORMAL)) < 0.95 * error(NORMAL, shared)


@given(
    st.lists(
        st.tuples(st.floats(-10, 10), st.floats(0, 20)), min_size=1, max_size=12, unique_by=lambda row: row[0]
    ),
    st.lists(st.floats(-15, 15), min_size=1, max_size=20),
)
@settings(max_examples=200, deadline=None)
def test_each_number_is_in_the_interval_of_the_cheapest(rows, numbers):
    rows.sort()
    centroids, costs = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
    bounds = intervals(centroids, costs)
    assert bool((bounds[1:] >= bounds[:-1]).all())
    values = torch.tensor(numbers, dtype=torch.float64)
    found = torch.searchsorted(bounds, values, right=True)
    all_costs = (values[:, None] - centroids).square() + costs
    chosen = all_costs.gather(1, found[:, None])[:, 0]
    assert torch.allclose(chosen, all_costs.min(1).values, rtol=1e-6, atol=1e-6)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=60), st.floats(0.1, 6))
@settings(max_examples=100, deadline=None)
def test_any_numbers_have_a_quantizer_of_at_most_the_rate(numbers, rate):
    values = torch.tensor(numbers)
    levels = rated(values, rate)
    assert levels.entropy <= rate + 1e-9
    assert bool(levels.nearest(values).isfinite().all())


OTHERS = {
    "normal": NORMAL,
    "far from zero": 5 + 0.05 * NORMAL,
    "long tails": torch.tensor(np.random.default_rng(0).standard_t(4, 100_000)).float(),
    "one far away": torch.cat([NORMAL[:100_000], torch.tensor([1e6])]),
    "two humps": torch.cat([NORMAL[:50_000].sign() * (1 + 0.02 * NORMAL[:50_000]), torch.zeros(9_000)]),
    "few": torch.tensor([-1.0, 0.0, 0.5, 0.75, 1.0]).repeat(100),
}


@pytest.mark.parametrize("name", OTHERS)
def test_more_bits_are_never_worse_than_fewer_or_than_k_means(name):
    values = OTHERS[name]
    before = math.inf
    for rate in (0.4, 0.95, 1.0, 1.58, 2.0, 3.5, 5.0, 6.3, 7.0, 8.0):
        levels = rated(values, rate)
        found = levels.nearest(values)
        lost = float((values.double() - found).square().sum())
        taken = entropy(found.unique(return_inverse=True)[1])
        assert taken == pytest.approx(levels.entropy, abs=0.002)
        assert taken <= rate + 1e-6
        assert bool((found[values == 0] == 0).all())
        assert lost <= 1.02 * before
        before = min(lost, before)
        for bits in (2, 3, 4, 8):
            centroids = kmeans.cluster(values[values != 0], 2**bits - 1)
            codes = torch.where(values == 0, 0, kmeans.assign(values, centroids) + 1)
            shared = torch.where(values == 0, 0, centroids[kmeans.assign(values, centroids).long()])
            if entropy(codes) <= rate:
                assert lost <= 1.02 * float((values.double() - shared).square().sum()) + 1e-9


def test_no_more_values_than_asked_for():
    for most in (64, 100, 255):
        for values in (NORMAL, NORMAL * (NORMAL > 0), NORMAL[:4000] * magnitude_mask(NORMAL[:4000], 0.7)):
            for rate in (4, 6.5, 8):
                assert len(rated(values, rate, most=most).centroids) <= most
    with pytest.raises(RecipeError, match="most"):
        rated(NORMAL, 2.0, most=63)


def test_one_merge_is_compared_with_the_grid():
    """A value that must go is not merged with its neighbour where another split of all is better."""
    draw = torch.Generator().manual_seed(5)
    for _ in range(30):
        count = int(torch.randint(3, 39, (1,), generator=draw))
        table = torch.randn(count, generator=draw)
        values = table[torch.randint(0, count, (3000,), generator=draw)]
        values[torch.rand(3000, generator=draw) < 0.3] = 0
        rate = 0.999 * entropy(values.unique(return_inverse=True)[1])
        wider = torch.cat(
            [values, torch.full((1,), 1e-3)]
        )  # the same with one value more: it is not exact either way
        lost = error(values, rated(values, rate).nearest(values))
        assert lost <= 1.1 * error(values, rated(wider, rate).nearest(values)) + 1e-9


def test_zeros_are_plus_zero():
    values = torch.zeros(1000)
    values[:400], values[-20:] = -0.0, 2.5
    for rate in (0.05, 2.0):
        found = rated(values, rate).nearest(values)
        assert not bool(found[found == 0].signbit().any())


def test_few_values_stay_as_they_are():
    values = torch.tensor([0.0, 0.0, 0.25, -1.5]).repeat(100)
    assert torch.equal(rated(values, 1.6).nearest(values), values)
    assert rated(values, 1.6).entropy == pytest.approx(1.5)
    assert rated(values, 1.0).entropy <= 1.0


def test_what_is_no_number_is_refused():
    with pytest.raises(DataError, match="NaN or infinite"):
        rated(torch.tensor([1.0, math.nan, 2.0]), 2.0)
    for rate in (0, -1, math.nan, math.inf, 9, True, "2", None):
        with pytest.raises(RecipeError, match="rate"):
            rated(NORMAL[:100], rate)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 5))


def test_a_model_is_shared_by_rate_and_packed(tmp_path):
    model = net()
    before = model[0].weight.detach().clone()
    assert share(model, rate={"0.weight": 2.0}) == {"0.weight": 2.0}
    assert [name for name, _ in model.named_parameters()][1] == "0.parametrizations.weight.original"
    bake(model)
    found = model[0].weight.detach()
    assert 1.95 < entropy(found.unique(return_inverse=True)[1]) <= 2.0
    assert torch.equal(found, rated(before.flatten(), 2.0).nearest(before))
    lz.codebook.pack(model.state_dict(), tmp_path / "net.lzc")
    assert torch.equal(lz.codebook.unpack(tmp_path / "net.lzc")["0.weight"], found)


def test_what_does_not_go_together_is_refused():
    for given_options in ({}, {"bits": 3, "rate": 2.0}, {"rate": "two"}):
        with pytest.raises(RecipeError, match="give one of them"):
            share(net(), **given_options)
    for number in ("2", None, True, 9):
        with pytest.raises(RecipeError, match=r"rate=.*0\.weight"):
            share(net(), rate={"0.weight": number})


class TestMoving:
    def test_of_few_values_it_may_take_the_bits_that_were_asked_for(self):
        """As of a model that was shared before: its own entropy is not the rate."""
        torch.manual_seed(0)
        model = nn.Linear(64, 96, bias=False)
        with torch.no_grad():
            model.weight.copy_(torch.where(torch.rand(96, 64) < 0.97, 0.05, 0.1) * torch.randn(96, 64).sign())
        own = entropy(model.weight.unique(return_inverse=True)[1])
        share(model, rate=1.6, moving=True)
        original, book = model.parametrizations.weight.original, model.parametrizations.weight[0]
        assert (book.rate, book.price > 0) == (1.6, True)
        assert own < 1.25
        for _ in range(300):
            with torch.no_grad():
                original.add_(0.002 * torch.randn_like(original))
            moving.follow(model)
        assert entropy(bake(model).weight.unique(return_inverse=True)[1]) == pytest.approx(1.6, abs=0.1)

    def test_pruned_zeros_count_as_zeros(self):
        humps = OTHERS["two humps"][torch.randperm(59_000, generator=torch.Generator().manual_seed(0))]
        model = nn.Sequential(nn.Linear(590, 100, bias=False))
        with torch.no_grad():
            model[0].weight.copy_(humps.view(100, 590))
        share(model, rate=1.4, moving=True)
        for _ in range(100):
            moving.follow(model)
        book = model[0].parametrizations.weight[0]
        weight = bake(model)[0].weight.detach()
        assert bool((weight[humps.view(100, 590) == 0] == 0).all())
        for centroid in weight.unique().tolist():
            if centroid:
                assert centroid == pytest.approx(
                    humps.view(100, 590)[weight == centroid].mean().item(), abs=0.01
                )
        assert book.centroids_0.numel() >= len(weight.unique()) - 1

    def test_half_precision_and_back(self):
        model = nn.Linear(300, 300)
        share(model, rate=2.0, moving=True)
        inputs = torch.randn(2, 300)
        for kind in (torch.bfloat16, torch.float64, torch.float32):
            assert model.to(kind)(inputs.to(kind)).dtype == kind
            moving.follow(model)

    def test_what_is_no_number_is_said(self):
        model = nn.Linear(64, 64)
        share(model, rate=2.0, moving=True)
        with torch.no_grad():
            model.parametrizations.weight.original[0, 0] = math.nan
        with pytest.raises(DataError, match="NaN or infinite"):
            moving.follow(model)

    def test_the_price_has_limits(self):
        model = nn.Linear(64, 64, bias=False)
        share(model, rate=0.5, moving=True)
        book, original = model.parametrizations.weight[0], model.parametrizations.weight.original
        before = original.detach().clone()
        for values, updates in ((torch.ones(64, 64), 3000), (before, 600)):
            with torch.no_grad():
                original.copy_(values)
            for _ in range(updates):
                book.follow(original)
            assert book.first / 64 <= book.price <= book.first * 64
        assert entropy(model.weight.unique(return_inverse=True)[1]) < 0.6

    def test_weights_count_as_their_values_and_the_rate_holds(self):
        model = net()
        torch.manual_seed(1)
        removed = model[0].weight.detach().abs() < 0.02
        with torch.no_grad():
            model[0].weight[removed] = 0
        share(model, rate=1.5, moving=True)
        original = model[0].parametrizations.weight.original
        assert isinstance(model[0].parametrizations.weight[0], RatedMoving)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(400):
            optimizer.zero_grad()
            # weights grow away from zero, and so would their entropy
            (model(torch.randn(32, 64)).square().mean() - 0.02 * original.abs().sum()).backward()
            optimizer.step()
            moving.follow(model)
        weight = bake(model)[0].weight.detach()
        assert bool((weight[removed] == 0).all())
        assert entropy(weight.unique(return_inverse=True)[1]) == pytest.approx(1.5, abs=0.1)

    @pytest.mark.parametrize("rate", [0.8, 1.84, 3.44])
    def test_the_rate_is_met_where_weights_grow_ever_more_slowly(self, rate):
        """As under a schedule that ends at 0: what is too much at first is gone at the end."""
        weight, away = NORMAL[:50_000], NORMAL[50_000:100_000]
        book = RatedMoving(weight, rated(weight, rate), rate)
        for step in range(600):
            weight = weight + 0.01 * (1 - step / 600) * (0.5 * away + 0.5 * weight.sign())
            book.follow(weight)
        assert entropy(book(weight).unique(return_inverse=True)[1]) == pytest.approx(rate, abs=0.01)

    def test_a_gradient_goes_to_what_is_not_pruned(self):
        weight = torch.tensor([[0.0, 0.01, 0.5, -0.6]])
        book = RatedMoving(weight, rated(weight.flatten(), 1.2), 1.2)
        parameter = nn.Parameter(weight.clone())
        book(parameter).sum().backward()
        assert parameter.grad.tolist() == [[0, 1, 1, 1]]

    def test_its_state_goes_through_a_checkpoint(self):
        one, other = net(), net()
        share(one, rate=2.0, moving=True)
        share(other, rate=3.0, moving=True)
        for _ in range(3):
            moving.follow(one)
        small = net()
        share(small, rate=2.0, moving=True)
        small.load_state_dict(one.state_dict())
        inputs = torch.randn(4, 64)
        assert torch.equal(small(inputs), one(inputs))
        larger = net()
        with torch.no_grad():
            larger[0].weight.mul_(100)
        share(larger, rate=2.0, moving=True)
        larger.load_state_dict(one.state_dict())
        for model in (one, larger):
            moving.follow(model)
        assert torch.equal(larger(inputs), one(inputs)), "the price has the limits that it had"

    def test_after_moving_the_values_are_shared_as_they_are(self):
        model = net()
        share(model, rate=2.0, moving=True)
        moving.follow(model)
        weight = bake(model)[0].weight.detach().clone()
        share(model, 8)
        assert torch.equal(model[0].weight, weight)
