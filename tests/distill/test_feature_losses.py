"""The losses on features: golden values by hand, and what must hold whatever the features are."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lianzhi.distill import losses
from lianzhi.errors import DataError, RecipeError

MAPS = ["attention_transfer", "nst"]
RELATIONS = ["pkt", "rkd", "similarity_preserving"]
EQUAL = ["fitnet", "review_kd"]
ALL = [*MAPS, *RELATIONS, *EQUAL]


def features(seed: int, *shape: int, kind: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(kind)


def flat(values) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    return array.reshape(len(array), -1)


def length(vector: np.ndarray) -> float:
    return math.sqrt(float((vector * vector).sum()))


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / length(vector) if length(vector) else vector


def average(maps, parts: int) -> np.ndarray:
    """Averages over equal squares."""
    array = np.asarray(maps, dtype=np.float64)
    step = array.shape[-1] // parts
    cut = array.reshape(*array.shape[:2], parts, step, parts, step)
    return cut.mean((3, 5))


def huber(x: float, y: float) -> float:
    gap = abs(x - y)
    return 0.5 * gap * gap if gap < 1 else gap - 0.5


def fitnet_by_hand(student, teacher) -> float:
    return float(((np.asarray(student, np.float64) - np.asarray(teacher, np.float64)) ** 2).mean())


def attention_by_hand(student, teacher, p: float = 2.0) -> float:
    total = count = 0.0
    for one, other in zip(np.asarray(student, np.float64), np.asarray(teacher, np.float64), strict=True):
        ours, theirs = (unit((np.abs(side) ** p).mean(0)) for side in (one, other))
        total += ((ours - theirs) ** 2).sum()
        count += ours.size
    return total / count


def rkd_by_hand(student, teacher, distance: float = 25.0, angle: float = 50.0) -> float:
    def relations(points):
        number = range(len(points))
        gaps = {(i, j): length(points[i] - points[j]) for i in number for j in number}
        mean = np.mean([gap for gap in gaps.values() if gap > 0])
        cosines = {
            (i, j, k): float(unit(points[i] - points[k]) @ unit(points[j] - points[k]))
            for i, j, k in itertools.product(number, number, number)
        }
        return {key: gap / mean for key, gap in gaps.items()}, cosines

    ours, theirs = relations(flat(student)), relations(flat(teacher))
    means = [np.mean([huber(mine[key], theirs[part][key]) for key in mine]) for part, mine in enumerate(ours)]
    return distance * means[0] + angle * means[1]


def similarity_by_hand(student, teacher) -> float:
    grams = [np.stack([unit(row) for row in side @ side.T]) for side in (flat(student), flat(teacher))]
    return float(((grams[0] - grams[1]) ** 2).sum()) / len(grams[0]) ** 2


def pkt_by_hand(student, teacher) -> float:
    def probabilities(points):
        kernel = np.array([[(float(unit(x) @ unit(y)) + 1) / 2 for y in points] for x in points])
        return kernel / kernel.sum(1, keepdims=True)

    p, q = probabilities(flat(teacher)), probabilities(flat(student))
    return float((p * np.log((p + 1e-7) / (q + 1e-7))).mean())


def nst_by_hand(student, teacher) -> float:
    def kernel(left, right):
        values = [
            float(unit(x) @ unit(y)) ** 2
            for one, other in zip(left, right, strict=True)
            for x in one.reshape(len(one), -1)
            for y in other.reshape(len(other), -1)
        ]
        return np.mean(values)

    ours, theirs = (np.asarray(side, np.float64) for side in (student, teacher))
    return float(kernel(theirs, theirs) + kernel(ours, ours) - 2 * kernel(ours, theirs))


def review_by_hand(student, teacher, levels=(4, 2, 1)) -> float:
    total = 0.0
    for one, other in zip(student, teacher, strict=True):
        weights, values = [1.0], [fitnet_by_hand(one, other)]
        for level in levels:
            if level < one.shape[-1]:
                weights.append(weights[-1] / 2)
                values.append(fitnet_by_hand(average(one, level), average(other, level)))
        total += float(np.dot(weights, values)) / sum(weights)
    return total


def test_attention_of_roots_has_a_gradient_where_a_feature_is_zero():
    """After a ReLU half of them are; the slope of a root at 0 has no end."""
    student, teacher = features(0, 2, 3, 4, 4).relu(), features(1, 2, 5, 4, 4)
    student[0] = 0  # a sample of which nothing is left
    student.requires_grad_()
    loss = losses.attention_transfer(student, teacher, p=0.5)
    loss.backward()
    assert loss.item() == pytest.approx(attention_by_hand(student.detach(), teacher, 0.5), rel=1e-5)
    assert bool(student.grad.isfinite().all())
    assert bool((student.grad[1][student.detach()[1] > 0] != 0).all())


@pytest.mark.parametrize("seed", range(3))
def test_golden_maps(seed):
    student, teacher = features(seed, 3, 4, 4, 4), features(seed + 9, 3, 6, 4, 4)
    close = {"rel": 1e-5, "abs": 1e-7}
    assert losses.attention_transfer(student, teacher).item() == pytest.approx(
        attention_by_hand(student, teacher), **close
    )
    assert losses.attention_transfer(student, teacher, p=1.0).item() == pytest.approx(
        attention_by_hand(student, teacher, 1.0), **close
    )
    assert losses.nst(student, teacher).item() == pytest.approx(nst_by_hand(student, teacher), **close)


@pytest.mark.parametrize("channels", [(40, 30), (2, 3)])
def test_golden_of_both_ways_to_compare_channels(channels):
    """Many channels on few positions go through the positions, few channels on many positions do not."""
    student, teacher = features(1, 2, channels[0], 2, 2), features(2, 2, channels[1], 2, 2)
    assert losses.nst(student, teacher).item() == pytest.approx(
        nst_by_hand(student, teacher), rel=1e-5, abs=1e-6
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shapes", [((5, 6), (5, 9)), ((4, 2, 3, 3), (4, 5, 2, 2))])
def test_golden_relations(seed, shapes):
    student, teacher = features(seed, *shapes[0]), features(seed + 9, *shapes[1])
    close = {"rel": 1e-5, "abs": 1e-7}
    assert losses.rkd(student, teacher).item() == pytest.approx(rkd_by_hand(student, teacher), **close)
    assert losses.rkd(student, teacher, distance=0.0, angle=3.0).item() == pytest.approx(
        rkd_by_hand(student, teacher, 0.0, 3.0), **close
    )
    assert losses.rkd(student, teacher, distance=2.0, angle=0.0).item() == pytest.approx(
        rkd_by_hand(student, teacher, 2.0, 0.0), **close
    )
    assert losses.similarity_preserving(student, teacher).item() == pytest.approx(
        similarity_by_hand(student, teacher), **close
    )
    assert losses.pkt(student, teacher).item() == pytest.approx(pkt_by_hand(student, teacher), **close)


@pytest.mark.parametrize("seed", range(3))
def test_golden_equal_shapes(seed):
    student, teacher = features(seed, 3, 4, 8, 8), features(seed + 9, 3, 4, 8, 8)
    assert losses.fitnet(student, teacher).item() == pytest.approx(fitnet_by_hand(student, teacher), rel=1e-5)
    stages = [
        (features(i, 2, 3, size, size), features(i + 9, 2, 3, size, size)) for i, size in enumerate((8, 4, 1))
    ]
    ours, theirs = zip(*stages, strict=True)
    assert losses.review_kd(ours, theirs).item() == pytest.approx(review_by_hand(ours, theirs), rel=1e-5)
    assert losses.review_kd(ours, theirs, levels=(2,)).item() == pytest.approx(
        review_by_hand(ours, theirs, (2,)), rel=1e-5
    )
    assert losses.review_kd(student, teacher).item() == pytest.approx(
        review_by_hand([student], [teacher]), rel=1e-5
    )


def test_numbers_that_were_worked_out_on_paper():
    """Three points on a line, then a right angle: distances (1, 1, 2), mean 4/3, and (1, 1, √2), mean (2 + √2) / 3."""
    line, corner = torch.tensor([[0.0, 0], [1, 0], [2, 0]]), torch.tensor([[1.0, 0], [0, 0], [0, 1]])
    short, long = 3 / (2 + 2**0.5), 3 * 2**0.5 / (2 + 2**0.5)
    distance = 2 * (2 * 0.5 * (short - 0.75) ** 2 + 0.5 * (long - 1.5) ** 2) / 9
    assert losses.rkd(line, corner, distance=1.0, angle=0.0).item() == pytest.approx(distance, rel=1e-5)
    # at the ends the cosines are 1 against 1/√2, in the middle -1 against 0, each twice of 27
    angle = 2 * (2 * 0.5 * (1 - 0.5**0.5) ** 2 + 0.5) / 27
    assert losses.rkd(line, corner, distance=0.0, angle=1.0).item() == pytest.approx(angle, rel=1e-5)


@given(seed=st.integers(0, 1000), batch=st.integers(1, 6), channels=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_never_negative_and_zero_for_equal_features(seed, batch, channels):
    student, teacher = features(seed, 2, batch, channels, 4, 4)
    for name in ALL:
        loss = losses.registry.get(name).build
        assert loss(teacher, teacher).item() == pytest.approx(0.0, abs=1e-6), name
        assert loss(student, teacher).item() >= -1e-6, name


@pytest.mark.parametrize("name", ["attention_transfer", "nst", *RELATIONS])
def test_the_size_of_features_does_not_matter(name):
    loss, student, teacher = losses.registry.get(name).build, features(1, 4, 3, 4, 4), features(2, 4, 5, 4, 4)
    assert loss(1e3 * student, 1e-3 * teacher).item() == pytest.approx(
        loss(student, teacher).item(), rel=1e-4
    )


@pytest.mark.parametrize("name", MAPS)
def test_the_larger_map_is_averaged_down(name):
    loss, student, teacher = losses.registry.get(name).build, features(1, 2, 3, 8, 8), features(2, 2, 5, 4, 4)
    small = torch.as_tensor(average(student, 4), dtype=torch.float32)
    assert loss(student, teacher).item() == pytest.approx(loss(small, teacher).item(), rel=1e-5)
    assert loss(teacher, student).item() == pytest.approx(loss(teacher, small).item(), rel=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_those_of_finite_differences(name):
    loss = losses.registry.get(name).build
    student = features(1, 3, 2, 4, 4, kind=torch.float64).requires_grad_()
    teacher = features(2, 3, 2, 4, 4, kind=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda values: loss(values, teacher), student)
    loss(student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(name, kind):
    loss = losses.registry.get(name).build
    student, teacher = 40 * features(1, 3, 2, 8, 8), 40 * features(2, 3, 2, 8, 8)  # squares overflow float16
    halves = student.to(kind).requires_grad_(), teacher.to(kind)
    value = loss(*halves)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(student, teacher).item(), rel=2e-2)
    value.backward()
    assert halves[0].grad.isfinite().all()


@pytest.mark.parametrize("name", RELATIONS)
def test_mixed_precision_does_not_reach_inside(name):
    loss, student, teacher = losses.registry.get(name).build, features(1, 6, 8), features(2, 6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss(student, teacher)
    assert mixed.item() == pytest.approx(loss(student, teacher).item(), rel=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_dead_features_and_equal_samples_give_finite_gradients(name):
    loss = losses.registry.get(name).build
    student = features(1, 4, 2, 4, 4)
    student[1], student[3] = 0.0, student[2]
    student.requires_grad_()
    loss(student, features(2, 4, 2, 4, 4)).backward()
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 1e3
    dead = torch.zeros(4, 2, 4, 4, requires_grad=True)
    value = loss(dead, features(2, 4, 2, 4, 4))
    value.backward()
    assert value.isfinite()
    assert dead.grad.isfinite().all()


@pytest.mark.parametrize("name", ["rkd", "similarity_preserving", "pkt"])
def test_a_sample_alone_has_no_relations(name):
    student = features(1, 1, 5).requires_grad_()
    loss = losses.registry.get(name).build(student, features(2, 1, 7))
    loss.backward()
    assert loss.item() == 0.0
    assert not student.grad.any()


@pytest.mark.parametrize(
    ("name", "student", "teacher", "message"),
    [
        ("fitnet", (2, 3, 4, 4), (2, 5, 4, 4), r"\[2, 3, 4, 4\] and the teacher's \[2, 5, 4, 4\].*connector"),
        ("review_kd", (2, 3, 4, 4), (2, 3, 8, 8), r"\[2, 3, 4, 4\] and the teacher's \[2, 3, 8, 8\]"),
        ("review_kd", (2, 3), (2, 3), r"\[2, 3\].*height"),
        ("attention_transfer", (2, 3), (2, 3), r"\[2, 3\].*must be maps"),
        ("nst", (2, 3, 4, 4), (3, 3, 4, 4), r"same samples"),
        ("rkd", (2, 3), (3, 3), r"same samples"),
        ("pkt", (3,), (3,), r"\[3\]"),
        ("similarity_preserving", (2, 3), (1, 3), r"same samples"),
    ],
)
def test_shapes_that_do_not_go_together_are_named(name, student, teacher, message):
    with pytest.raises(DataError, match=message):
        losses.registry.get(name).build(torch.zeros(student), torch.zeros(teacher))


def test_stages_go_in_pairs():
    with pytest.raises(DataError, match="2 stages of the student and 1"):
        losses.review_kd([torch.zeros(1, 1, 2, 2)] * 2, [torch.zeros(1, 1, 2, 2)])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("attention_transfer", {"p": 0}, "'p'"),
        ("rkd", {"angle": -1}, "'angle'"),
        ("review_kd", {"levels": [0]}, "'levels"),
    ],
)
def test_wrong_options_are_named(name, options, message):
    with pytest.raises(RecipeError, match=message):
        losses.registry.get(name).config(**options)
    maps = torch.zeros(1, 1, 2, 2)
    with pytest.raises(RecipeError, match=message):
        losses.registry.get(name).build(maps, maps, **options)


@pytest.mark.parametrize("name", ["rkd", "similarity_preserving", "pkt", "attention_transfer", "nst"])
def test_gradients_have_gradients(name):
    """Two samples that are the same, and one that is all zeros, have a distance and a length of 0."""
    student, teacher = features(0, 4, 3, 2, 2).double(), features(1, 4, 3, 2, 2).double()
    student[1], student[2] = student[0], 0.0
    student.requires_grad_()
    loss = getattr(losses, name)(student, teacher)
    (gradient,) = torch.autograd.grad(loss, student, create_graph=True)
    assert bool(gradient.isfinite().all())
    (second,) = torch.autograd.grad((gradient * teacher).sum(), student)
    assert bool(second.isfinite().all())
    assert bool(second.any())
