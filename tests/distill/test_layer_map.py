"""Maps of layers: the published ones, and what is refused."""

from __future__ import annotations

import pytest

from lianzhi.distill.layer_map import LayerMap
from lianzhi.errors import RecipeError


@pytest.mark.parametrize(
    ("name", "student", "teacher", "wanted"),
    [
        ("skip", 6, 12, [2, 4, 6, 8, 10]),  # 1908.09355, table 1
        ("skip", 3, 12, [4, 8]),
        ("last", 6, 12, [7, 8, 9, 10, 11]),
        ("last", 3, 12, [10, 11]),
        ("uniform", 4, 12, [3, 6, 9, 12]),  # 1909.10351
        ("uniform", 6, 12, [2, 4, 6, 8, 10, 12]),
        ("uniform", 4, 6, [2, 3, 5, 6]),
        ("skip", 4, 6, [2, 3, 5]),
        ("top", 3, 6, [4, 5, 6]),
        ("bottom", 3, 6, [1, 2, 3]),
        ("uniform", 3, 3, [1, 2, 3]),
        ([2, 6, 10], 4, 12, [2, 6, 10]),
    ],
)
def test_named_maps(name, student, teacher, wanted):
    found = LayerMap.named(name, student, teacher)
    assert found.pairs == tuple(enumerate(wanted, start=1))
    assert (found.student_layers, found.teacher_layers) == (student, teacher)


def test_pairs():
    assert LayerMap.named([[2, 6], [4, 12]], 4, 12).pairs == ((2, 6), (4, 12))


def test_it_prints_as_a_table():
    assert str(LayerMap.uniform(4, 12)) == "student 1 2 3  4\nteacher 3 6 9 12"


@pytest.mark.parametrize(
    ("name", "student", "teacher", "message"),
    [
        ("skipp", 3, 6, "unknown layer map 'skipp'; did you mean 'skip'"),
        ("uniform", 7, 6, "student of 7 layers and a teacher of 6 layers"),
        ("last", 0, 6, "student of 0 layers"),
        ("skip", 1, 6, "the student has but one"),
        ([2, 13], 3, 12, r"the teacher has no layer 13; it has 12 layers \(1 to 12"),
        ([1, 2, 3], 2, 12, "the student has no layer 3"),
        ([[1, 2], [1, 3]], 2, 12, "layer 1 stands in two pairs"),
        ([[1, 2, 3]], 2, 12, "is no pair of layers"),
        ([1, [1, 2]], 2, 12, "is no pair of layers"),
        ([[1, True]], 2, 12, "is no pair of layers"),
        ([], 2, 12, "no pair of layers"),
        ([-1], 2, 12, "the teacher has no layer -1"),
    ],
)
def test_what_does_not_fit_is_told(name, student, teacher, message):
    with pytest.raises(RecipeError, match=message):
        LayerMap.named(name, student, teacher)
