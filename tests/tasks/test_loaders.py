"""Tasks around DataLoaders of one's own."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, TensorDataset

from lianzhi.errors import DataError
from lianzhi.tasks import Task

X, Y = torch.arange(23.0)[:, None].repeat(1, 3), torch.arange(23) % 4


def loader(**options):
    return DataLoader(TensorDataset(X, Y), **{"batch_size": 5, **options})


class Restless(Dataset):
    """Augments with all three global generators."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        noise = torch.tensor([random.random(), float(np.random.rand()), float(torch.rand(()))])
        return index + noise, index % 2


class Stream(IterableDataset):
    def __iter__(self):
        return iter(TensorDataset(X, Y))


def ids(task, split="train", **how):
    return [batch.ids.tolist() for batch in task.batches(split, 5, **how)]


def inputs(task, split="train", **how):
    return torch.cat([batch.inputs for batch in task.batches(split, 5, **how)])


def test_running_positions_and_slices():
    task = Task(train=loader(), validation=loader())
    assert ids(task) == [list(range(start, min(start + 5, 23))) for start in range(0, 23, 5)]
    assert torch.equal(inputs(task), X)
    assert (task.size("train"), task.steps("train", 999), task.reported, task.num_classes) == (
        23,
        5,
        "validation",
        None,
    )
    shares = [list(task.batches("train", 5, rank=rank, world=2)) for rank in range(2)]
    mixed = [share[step] for step in range(5) for share in shares]
    assert torch.equal(torch.cat([batch.inputs for batch in mixed]), X)
    assert torch.cat([batch.ids for batch in mixed]).tolist() == list(range(23))
    assert [batch.total for batch in shares[0]] == [batch.total for batch in shares[1]] == [5, 5, 5, 5, 3]


@pytest.mark.parametrize("generator", [None, 3])
def test_a_shuffling_loader(generator):
    own = None if generator is None else torch.Generator().manual_seed(generator)
    task = Task(train=loader(shuffle=True, generator=own))
    before = torch.get_rng_state()
    first = inputs(task, epoch=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(first[:, 0].tolist()) == X[:, 0].tolist()
    assert not torch.equal(first, X)
    torch.rand(100)  # what happens outside does not matter
    assert torch.equal(inputs(task, epoch=0), first)
    assert not torch.equal(inputs(task, epoch=1), first)
    assert not torch.equal(inputs(task, epoch=0, seed=1), first)


def test_a_data_set_that_augments_is_reproducible_in_the_midst_of_other_draws():
    task = Task(train=DataLoader(Restless(), batch_size=4, shuffle=True))
    calm = inputs(task, epoch=3)
    disturbed = []
    for batch in task.batches("train", 4, epoch=3):
        disturbed.append(batch.inputs)
        torch.rand(7), np.random.rand(3), random.random()
    assert torch.equal(torch.cat(disturbed), calm)


def test_lists_streams_and_batch_samplers():
    pairs = [(X[:10], Y[:10]), (X[10:], Y[10:])]
    assert Task(train=pairs).size("train") == 23
    assert Task(train=pairs).steps("train", 1) == 2
    stream = Task(train=DataLoader(Stream(), batch_size=4))
    assert (stream.size("train"), stream.steps("train", 4)) == (23, 6)
    grouped = DataLoader(TensorDataset(X, Y), batch_sampler=[[0, 1, 2], [5]])
    assert (Task(train=grouped).size("train"), Task(train=grouped).steps("train", 1)) == (4, 2)
    assert Task(train=loader(drop_last=True)).size("train") == 20


def test_workers():
    task = Task(train=loader(num_workers=1, shuffle=True))
    assert torch.equal(inputs(task, epoch=0), inputs(task, epoch=0))
    assert sorted(inputs(task, epoch=0)[:, 0].tolist()) == X[:, 0].tolist()


def test_dicts_and_tuples():
    batches = [{"input_ids": X, "mask": X > 3, "labels": Y}]
    task = Task(train=batches)
    batch = next(iter(task.batches("train", 5, rank=1, world=2)))
    assert set(batch.inputs) == {"input_ids", "mask"}
    assert torch.equal(batch.inputs["input_ids"], X[12:])
    assert {key: len(value) for key, value in task.example_inputs.items()} == {"input_ids": 1, "mask": 1}
    task = Task(train=[([X, X + 1], Y)])
    assert isinstance(task.example_inputs, tuple)
    assert len(next(iter(task.batches("train", 5, world=2))).inputs[1]) == 12


def test_own_loss_and_metrics():
    def worth(outputs, labels):
        return -float((outputs - labels).abs().mean())

    task = Task(train=[(X, X[:, 0])], loss=torch.nn.MSELoss(), metrics={"worth": worth}, name="regression")
    assert task.metric == "worth"
    assert task.loss(torch.zeros(2), torch.ones(2)) == 1


def test_default_metrics():
    assert list(Task(train=loader()).metrics) == ["top1"]
    task = Task(train=loader(), labels=list("abcdefg"))
    assert list(task.metrics) == ["top1", "top5"]
    outputs = torch.eye(7)[torch.tensor([0, 1, 2, 6])] * 2 - torch.arange(7.0) / 10
    labels = torch.tensor([0, 1, 3, 5])
    assert task.metrics["top1"](outputs, labels) == 0.5
    assert task.metrics["top5"](outputs, labels) == 0.75
    assert task.loss(outputs, labels) == torch.nn.functional.cross_entropy(outputs, labels)


def test_fingerprint():
    same = Task(train=loader(), validation=loader()).fingerprint()
    assert Task(train=loader(), validation=loader()).fingerprint() == same
    assert Task(train=loader()).fingerprint() != same
    other = DataLoader(TensorDataset(X, Y.flip(0)), batch_size=5)
    assert Task(train=other, validation=loader()).fingerprint() != same
    shuffled = [Task(train=loader(shuffle=True)).fingerprint() for _ in range(2)]
    assert shuffled[0] == shuffled[1]


@pytest.mark.parametrize(
    ("parts", "options", "message"),
    [
        ({}, {}, "has no data"),
        ({"train": []}, {}, "the train loader is empty"),
        ({"train": iter([(X, Y)])}, {}, "read only once"),
        ({"train": 5}, {}, "got int"),
        ({"train": TensorDataset(X, Y)}, {}, "got TensorDataset"),
        ({"train": [X]}, {}, "got a Tensor"),
        ({"train": [(X, Y, Y)]}, {}, "tuple of 3"),
        ({"train": [(X, Y[:5])]}, {}, "differ in length"),
        ({"train": [{"x": X}]}, {}, "the key 'labels'"),
        ({"train": [(X.numpy(), Y)]}, {}, "must be tensors"),
        ({"train": [(X, X[:, 0])]}, {}, "labels are torch.float32"),
        ({"train": [(X, Y - 1)]}, {}, "label -1 is outside the class range"),
        ({"train": [(X, Y)]}, {"labels": ["a", "b", "c"]}, "label 3 is outside the class range 0 to 2"),
        ({"train": [(X, Y)]}, {"labels": ["a"], "num_classes": 2}, "1 labels are named and there are 2"),
        ({"train": [(X, Y)]}, {"metrics": {}}, "'metrics' is empty"),
        ({"validation": loader(drop_last=True)}, {}, "drop_last"),
        (
            {"test": loader(sampler=torch.utils.data.WeightedRandomSampler([1.0] * 23, 23))},
            {},
            "with replacement",
        ),
        ({"train": loader(sampler=DistributedSampler(X, 2, 0))}, {}, "DistributedSampler"),
    ],
)
def test_refused_when_made(parts, options, message):
    with pytest.raises(DataError, match=message):
        Task(**parts, **options)


def test_a_wrong_label_later_is_named():
    task = Task(train=[(X, Y), (X, Y + 1)], labels=list("abcd"))
    with pytest.raises(
        DataError, match="the train loader, batch 1: label 4 is outside the class range 0 to 3"
    ):
        list(task.batches("train", 5))
