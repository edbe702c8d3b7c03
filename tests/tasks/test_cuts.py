"""Cuts: disjoint, complete, stratified, seeded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lianzhi.errors import DataError
from lianzhi.tasks.cuts import limited, partition, partition_groups, strata, stratified

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=200).map(np.array)


@given(LABELS, st.data())
def test_each_class_has_its_share(labels, data):
    count = data.draw(st.integers(0, len(labels)))
    chosen = stratified(labels, count, 0, "validation")
    assert len(chosen) == len(set(chosen.tolist())) == count
    assert chosen.tolist() == sorted(chosen.tolist())
    found = np.bincount(labels[chosen], minlength=6)
    exact = np.bincount(labels, minlength=6) * count / len(labels)
    assert (abs(found - exact) < 1).all()


@given(st.integers(13, 300), st.integers(0, 3), st.integers(0, 4), st.integers(0, 5))
def test_parts_are_disjoint_and_complete(total, test, validation, calibration):
    labels = np.arange(total) % 3
    parts = partition(
        labels, {"test": test, "validation": validation, "calibration": calibration}, 1, what="it"
    )
    everything = np.concatenate(list(parts.values()))
    assert sorted(everything.tolist()) == list(range(total))
    assert {name: len(rows) for name, rows in parts.items() if name != "train"} == {
        name: count
        for name, count in (("test", test), ("validation", validation), ("calibration", calibration))
        if count
    }


def test_a_cut_does_not_move_with_the_cuts_after_it():
    labels = np.arange(1000) % 10
    one = partition(labels, {"validation": 100, "calibration": 10}, 0, what="it")
    two = partition(labels, {"validation": 100, "calibration": 500}, 0, what="it")
    assert np.array_equal(one["validation"], two["validation"])
    other = partition(labels, {"validation": 100, "calibration": 10}, 1, what="it")
    assert not np.array_equal(one["validation"], other["validation"])


def test_shares_are_counted():
    parts = partition(np.zeros(50, int), {"validation": 0.1, "calibration": 0.001}, 0, what="it")
    assert (len(parts["validation"]), len(parts["calibration"])) == (5, 1)


def test_nothing_left_to_train_on():
    with pytest.raises(
        DataError,
        match=r"the folder has 100 samples, and validation 5,000, calibration 1,024 .* validation: 0.1",
    ):
        partition(np.zeros(100, int), {"validation": 5000, "calibration": 1024}, 0, what="the folder")


def test_limit_keeps_the_classes():
    rows = np.arange(100, 200)
    chosen = limited(rows, rows % 4, 20, 0)
    assert set(chosen) <= set(rows)
    assert np.bincount(chosen % 4).tolist() == [5, 5, 5, 5]
    assert limited(rows, rows % 4, 1000, 0) is rows


def test_groups_of_many_classes_are_as_many_as_asked_for():
    """Rounding each class by itself would give 6 of 5."""
    labels = np.arange(54) % 3
    parts = partition_groups(labels, np.arange(54), {"calibration": 5}, 0, what="the data")
    assert len(parts["calibration"]) == 5


def test_scores_are_cut_by_size():
    scores = np.linspace(0, 5, 200, dtype=np.float32)
    kinds = strata(scores)
    assert np.bincount(kinds).tolist() == [20] * 10
    assert np.array_equal(strata(np.asarray([3, 1, 1])), [3, 1, 1])
    chosen = scores[stratified(kinds, 20, 0, "validation")]
    assert np.bincount((chosen / 0.5001).astype(int)).tolist() == [2] * 10


@pytest.mark.parametrize("seed", [2, 6])
def test_rows_that_are_very_often_the_same_leave_room_for_others(seed):
    """ "Good." two thousand times is one group, which fits in no small part, and is to keep nothing else out."""
    groups = np.concatenate([np.zeros(200, np.int64), np.arange(1, 401)])
    labels = np.where(groups < 201, 1, 0)
    parts = partition_groups(labels, groups, {"test": 60, "validation": 60}, seed, what="it")
    for name in ("test", "validation"):
        assert 50 <= len(parts[name]) <= 60
        assert np.bincount(labels[parts[name]], minlength=2).min() >= 15
        assert not set(groups[parts[name]]) & set(groups[parts["train"]])
