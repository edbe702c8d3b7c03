"""Batches of every kind of split: each sample once, in any number of processes, the same everywhere."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from task_samples import images, labels_of, write_folder

from lianzhi.errors import DataError
from lianzhi.tasks import task
from lianzhi.tasks.augmentation import Augmentation
from lianzhi.tasks.preprocess import Preprocess
from lianzhi.tasks.split import StoredSplit
from lianzhi.tasks.stores import PixelStore

PLAIN = Preprocess((6, 6), 1, (0.5,), (0.5,))


def split_of(count):
    pixels = images(max(count, 1), size=(6, 6), channels=1)[:count].transpose(0, 3, 1, 2)
    store = PixelStore(pixels, "digest")
    return StoredSplit(
        store, np.arange(count), labels_of(count, 3), preprocess=PLAIN, augmentation=Augmentation(1)
    )


def joined(parts):
    return tuple(torch.cat([getattr(part, name) for part in parts]) for name in ("inputs", "labels", "ids"))


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 40),
    batch_size=st.integers(1, 17),
    world=st.integers(1, 5),
    epoch=st.none() | st.integers(0, 3),
    augment=st.booleans(),
)
def test_slices_of_all_processes_make_the_whole(count, batch_size, world, epoch, augment):
    split = split_of(count)
    how = {"epoch": epoch, "seed": 7, "augment": augment}
    whole = list(split.batches(batch_size, **how, rank=0, world=1))
    shares = [list(split.batches(batch_size, **how, rank=rank, world=world)) for rank in range(world)]
    assert {len(share) for share in shares} == {len(whole)} == {split.steps(batch_size)}
    assert sorted(torch.cat([batch.ids for batch in whole]).tolist()) == list(range(count))
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        for found, expected in zip(joined(parts), joined([batch]), strict=True):
            assert torch.equal(found, expected)
        assert {part.total for part in parts} == {len(batch.ids)} == {batch.total}
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert batch.labels.tolist() == [int(i) % 3 for i in batch.ids]
        assert batch.inputs.dtype == torch.float32
        assert batch.ids.dtype == batch.labels.dtype == torch.int64


def test_in_order_without_an_epoch():
    batches = list(split_of(10).batches(4, epoch=None, seed=0, augment=True, rank=0, world=1))
    assert [batch.ids.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    pixels = images(10, size=(6, 6), channels=1)[..., 0]
    expected = (pixels / 255 - 0.5) / 0.5
    np.testing.assert_allclose(torch.cat([batch.inputs for batch in batches])[:, 0], expected, atol=1e-6)


def test_order_and_augmentation_are_functions_of_seed_and_epoch():
    split = split_of(40)

    def run(**how):
        everything = joined(list(split.batches(7, **{"rank": 0, "world": 1, "augment": True, **how})))
        return everything[2].tolist(), everything[0][everything[2].argsort()]

    base = run(seed=1, epoch=2)
    assert torch.equal(base[1], run(seed=1, epoch=2)[1])
    for other in (run(seed=1, epoch=3), run(seed=2, epoch=2)):
        assert other[0] != base[0]
        assert not torch.equal(other[1], base[1])
    plain = run(seed=1, epoch=2, augment=False)
    assert plain[0] == base[0]
    assert not torch.equal(plain[1], base[1])


def test_augmentation_of_a_sample_does_not_depend_on_the_batch_size():
    split = split_of(30)
    found = []
    for batch_size in (1, 4, 30):
        inputs, _, ids = joined(
            list(split.batches(batch_size, epoch=1, seed=0, augment=True, rank=0, world=1))
        )
        found.append(inputs[ids.argsort()])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("size", [None, 96])
def test_images_decoded_when_needed(tmp_path, size):
    """Large images give the same in any number of processes, and augment differently each epoch."""
    write_folder(tmp_path, 12, size=(90, 120))
    large = task("image_folder", data=tmp_path, size=size, validation=2, calibration=0, test=3)
    side = size or 224
    assert large.example_inputs.shape == (1, 3, side, side)
    for how in ({}, {"epoch": 1, "augment": True}):
        whole = joined(list(large.batches("train", 5, **how)))
        shares = [list(large.batches("train", 5, **how, rank=rank, world=3)) for rank in range(3)]
        mixed = joined([share[step] for step in range(large.steps("train", 5)) for share in shares])
        assert all(torch.equal(one, two) for one, two in zip(whole, mixed, strict=True))
        assert len(set(whole[2].tolist())) == large.size("train") == 19
    first, second = (
        torch.cat(
            [
                batch.inputs[batch.ids.argsort()]
                for batch in large.batches("train", 19, epoch=epoch, augment=True)
            ]
        )
        for epoch in (0, 1)
    )
    assert not torch.equal(first, second)


def test_more_processes_than_samples():
    batches = [
        list(split_of(5).batches(4, epoch=None, seed=0, augment=False, rank=rank, world=3))
        for rank in range(3)
    ]
    assert [[len(batch) for batch in share] for share in batches] == [[2, 1], [1, 0], [1, 0]]
    assert batches[2][1].inputs.shape == (0, 1, 6, 6)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"batch_size": 0}, "batch size is 0"),
        ({"rank": 2, "world": 2}, "process 2 of 2"),
        ({"split": "tset"}, "no split 'tset'; did you mean 'test'"),
    ],
)
def test_wrong_calls(how, message):
    made = task("synthetic", samples=64, classes=2, shape=(1, 4, 4))
    with pytest.raises(DataError, match=message):
        made.batches(**{"split": "train", "batch_size": 4, **how})
