"""A split around a PyTorch DataLoader, or any other iterable of batches, of the user's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler, WeightedRandomSampler

from lianzhi.errors import DataError
from lianzhi.tasks import hashing
from lianzhi.tasks.batch import Batch, Inputs, cut, share
from lianzhi.tasks.randomness import OwnRandomness
from lianzhi.tasks.split import Split


class LoaderSplit(Split):
    """Batches as the loader makes them, sliced by process; ids are running positions.

    The loader's own batch size holds. A loader that shuffles does so as a function of (seed, epoch).
    """

    def __init__(
        self, loader: Iterable[Any], *, name: str, num_classes: int | None = None, classes_only: bool = True
    ) -> None:
        self.loader, self.name, self.num_classes, self.classes_only = loader, name, num_classes, classes_only
        self._counts: tuple[int, int] | None = None
        _require_complete(loader, name)
        first = next(self._pairs(None, 0), None)
        if first is None:
            raise DataError(f"the {name} loader is empty: it yields no batch")
        self._first_inputs, self._first_labels = first

    @property
    def size(self) -> int:
        return self._count()[0]

    def steps(self, batch_size: int) -> int:
        return self._count()[1]

    def batches(
        self, batch_size: int, *, epoch: int | None, seed: int, augment: bool, rank: int, world: int
    ) -> Iterator[Batch]:
        position = 0
        for inputs, labels in self._pairs(epoch, seed):
            count = len(labels)
            where = share(count, rank, world)
            ids = torch.arange(position + where.start, position + where.stop)
            yield Batch(cut(inputs, where), cut(labels, where), ids, count)
            position += count

    def example(self) -> Inputs:
        return cut(self._first_inputs, slice(0, 1))

    def fixed(self, augment: bool) -> bool:
        return False  # it may shuffle or augment; ids are positions

    def digest(self) -> str:
        labels = self._first_labels
        values = labels.detach().cpu().contiguous().view(-1).numpy().tobytes()
        return hashing.digest(str(_shapes(self._first_inputs)), str(labels.dtype), values)

    def _pairs(self, epoch: int | None, seed: int) -> Iterator[tuple[Inputs, Tensor]]:
        """Inputs and labels of each batch, checked, drawn under random state of their own."""
        own = OwnRandomness(seed, -1 if epoch is None else epoch, _generators(self.loader))
        with own:
            iterator = iter(self.loader)
        number = 0
        while True:
            with own:
                batch = next(iterator, self)
            if batch is self:
                return
            where = f"the {self.name} loader, batch {number}"
            inputs, labels = _split_batch(batch, where)
            self._check(inputs, labels, where)
            yield inputs, labels
            number += 1

    def _check(self, inputs: Inputs, labels: Tensor, where: str) -> None:
        counts = {len(tensor) for tensor in _tensors(inputs)} | {len(labels)}
        if len(counts) != 1:
            raise DataError(
                f"{where}: inputs {_shapes(inputs)} and labels {tuple(labels.shape)} differ in length"
            )
        if not self.classes_only:
            return
        if labels.dtype.is_floating_point:
            raise DataError(
                f"{where}: labels are {labels.dtype}, and the default loss is for class numbers; "
                f"give integer labels, or your own loss= and metrics="
            )
        if not len(labels):
            return
        lowest, highest = int(labels.min()), int(labels.max())
        if lowest < 0 or (self.num_classes is not None and highest >= self.num_classes):
            wrong = lowest if lowest < 0 else highest
            upper = "" if self.num_classes is None else f" to {self.num_classes - 1}"
            raise DataError(
                f"{where}: label {wrong} is outside the class range 0{upper}; mend the labels or the classes"
            )

    def _count(self) -> tuple[int, int]:
        """Samples and batches, from the loader's own lengths where it is a plain DataLoader, else by a pass."""
        if self._counts is None:
            loader = self.loader
            if (
                isinstance(loader, DataLoader)
                and isinstance(loader.batch_size, int)
                and _has_length(loader.sampler)
            ):
                samples, batches = len(loader.sampler), len(loader)  # type: ignore[arg-type]
                self._counts = (min(samples, batches * loader.batch_size), batches)
            else:
                lengths = [len(labels) for _, labels in self._pairs(None, 0)]
                self._counts = (sum(lengths), len(lengths))
        return self._counts


def _require_complete(loader: Any, name: str) -> None:
    """Refuse what can be read only once, and what would not count every sample once where that matters."""
    if not isinstance(loader, Iterable):
        raise DataError(f"{name} must be a DataLoader or an iterable of batches, got {type(loader).__name__}")
    if isinstance(loader, Iterator):
        raise DataError(
            f"{name} is a {type(loader).__name__}, which can be read only once; give the DataLoader itself, or a list"
        )
    if isinstance(loader, DataLoader) and isinstance(loader.sampler, DistributedSampler):
        raise DataError(
            f"the {name} loader has a DistributedSampler; make it without: each process takes its slice of every batch"
        )
    if not isinstance(loader, DataLoader) or name == "train":
        return
    if loader.drop_last:
        raise DataError(
            f"the {name} loader has drop_last=True, so that samples would not be counted; make it with drop_last=False"
        )
    sampler = loader.sampler
    repeats = isinstance(sampler, WeightedRandomSampler) or (
        isinstance(sampler, RandomSampler) and sampler.replacement
    )
    if repeats:
        raise DataError(
            f"the {name} loader draws with replacement; every sample is to be counted exactly once"
        )


def _split_batch(batch: Any, where: str) -> tuple[Inputs, Tensor]:
    """Inputs and labels of what a loader yielded."""
    if isinstance(batch, Mapping):
        if "labels" not in batch:
            raise DataError(f"{where}: a dict with the keys {list(batch)}; it needs the key 'labels'")
        inputs: Any = {key: value for key, value in batch.items() if key != "labels"}
        labels = batch["labels"]
    elif isinstance(batch, (tuple, list)) and len(batch) == 2:
        inputs, labels = batch
        if isinstance(inputs, Mapping):
            inputs = dict(inputs)
        elif isinstance(inputs, list):
            inputs = tuple(inputs)
    else:
        kind = (
            f"{type(batch).__name__} of {len(batch)}"
            if isinstance(batch, (tuple, list))
            else type(batch).__name__
        )
        raise DataError(
            f"{where}: got a {kind}; a batch is (inputs, labels), or a dict with the key 'labels'"
        )
    if not isinstance(labels, Tensor) or not all(isinstance(tensor, Tensor) for tensor in _tensors(inputs)):
        raise DataError(f"{where}: inputs and labels must be tensors; let the loader collate them")
    return inputs, labels


def _tensors(inputs: Any) -> list[Any]:
    if isinstance(inputs, dict):
        return list(inputs.values())
    return list(inputs) if isinstance(inputs, tuple) else [inputs]


def _shapes(inputs: Any) -> list[tuple[Any, ...]]:
    return [(*tensor.shape[1:], str(tensor.dtype)) for tensor in _tensors(inputs)]


def _generators(loader: Any) -> list[torch.Generator]:
    """The loader's own generators: they are seeded for each pass."""
    if not isinstance(loader, DataLoader):
        return []
    found = [loader.generator]
    for sampler in (loader.sampler, loader.batch_sampler):
        if isinstance(sampler, (RandomSampler, WeightedRandomSampler)):
            found.append(sampler.generator)
    return [generator for generator in found if generator is not None]


def _has_length(value: Any) -> bool:
    try:
        len(value)
    except TypeError:
        return False
    return True
