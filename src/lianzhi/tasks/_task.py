"""A task: data in strict splits, a loss, metrics, and how an input is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from lianzhi.errors import DataError, did_you_mean
from lianzhi.tasks import hashing
from lianzhi.tasks.batch import Batch, Inputs
from lianzhi.tasks.loaders import LoaderSplit
from lianzhi.tasks.metrics import Metric, default_metrics
from lianzhi.tasks.outputs import classification_loss, logits_alone
from lianzhi.tasks.preprocess import Preprocess
from lianzhi.tasks.split import Split
from lianzhi.tasks.text_preprocess import TextPreprocess

Source = Split | Iterable[Any]


class Task:
    """What a model is for. Made by `lianzhi.task`, or around PyTorch DataLoaders of one's own.

    >>> import torch
    >>> loader = [(torch.randn(8, 3), torch.arange(8) % 2)]      # any iterable of batches, a DataLoader say
    >>> task = Task(train=loader, validation=loader, labels=["cat", "dog"])
    >>> task.size("train"), task.metric, task.reported, task.has("test")
    (8, 'top1', 'validation', False)
    >>> [tuple(batch.inputs.shape) for batch in task.batches("train", 8, rank=1, world=2)]
    [(4, 3)]

    A loader yields ``(inputs, labels)``, or dicts with the key ``labels``; inputs are a tensor, a tuple or a
    dict of tensors. It keeps its own batch size, which is that of the whole step: each process takes its
    slice of each batch. `calibration` must be disjoint from the others; `test` is only ever reported.

    `loss(outputs, labels)` is the mean over the batch (default: cross entropy). `metrics` maps a name to
    ``f(outputs, labels) -> float``, where more is better; the first one decides (default: top-1). Outputs are
    what the model returns; the defaults read a dict's entry ``logits``. With ``num_classes=1`` and no labels the
    model gives a score: give `loss` and `metrics` with it. `example_inputs` is a batch of one that latency and MACs
    are measured with (default: the first sample). `also` names further splits that are only reported.

    Metrics read the outputs and labels of a whole split. Where those of two batches cannot be joined (tokens of
    texts of several lengths), ``condense(outputs, labels)`` makes of a batch's what can, one row a sample. Where the
    loss needs not all of a model's outputs, the model is called within ``focus(model, labels)``, a context manager.
    """

    def __init__(
        self,
        train: Source | None = None,
        validation: Source | None = None,
        calibration: Source | None = None,
        test: Source | None = None,
        *,
        loss: Callable[[Any, Any], Tensor] | None = None,
        metrics: dict[str, Metric] | None = None,
        condense: Callable[[Any, Any], tuple[Any, Any]] | None = None,
        focus: Callable[[nn.Module, Any], AbstractContextManager[None]] | None = None,
        name: str = "custom",
        labels: Sequence[str] | None = None,
        num_classes: int | None = None,
        preprocess: Preprocess | TextPreprocess | None = None,
        example_inputs: Inputs | None = None,
        source: str = "",
        notes: Sequence[str] = (),
        also: Mapping[str, Source] | None = None,
    ) -> None:
        self.name, self.preprocess, self.source, self.notes = name, preprocess, source, tuple(notes)
        self.labels = None if labels is None else [str(label) for label in labels]
        self.num_classes = (
            len(self.labels) if num_classes is None and self.labels is not None else num_classes
        )
        if self.labels is not None and self.num_classes != len(self.labels):
            raise DataError(
                f"task '{name}': {len(self.labels)} labels are named and there are {num_classes} classes"
            )
        given = {"train": train, "validation": validation, "calibration": calibration, "test": test}
        self.also = tuple(also or ())
        if taken := [key for key in self.also if key in given]:
            raise DataError(f"task '{name}': 'also' names the split '{taken[0]}', which has its own argument")
        given |= also or {}
        self.splits: dict[str, Split] = {}
        for key, part in given.items():
            if part is not None:
                self.splits[key] = self._wrap(key, part, default_loss=loss is None)
        if not self.splits:
            raise DataError(f"task '{name}' has no data; give train=, validation=, calibration= or test=")
        self.loss = classification_loss if loss is None else loss
        self.metrics = dict(default_metrics(self.num_classes) if metrics is None else metrics)
        if not self.metrics:
            raise DataError(
                f"task '{name}': 'metrics' is empty; give at least one, or leave it out for top-1"
            )
        self.condense = condense or (logits_alone if metrics is None else _as_they_are)
        self.focus = focus or _on_all
        self.metric = next(iter(self.metrics))
        self.example_inputs: Inputs = (
            next(iter(self.splits.values())).example() if example_inputs is None else example_inputs
        )

    def _wrap(self, key: str, part: Source, *, default_loss: bool) -> Split:
        split = (
            part
            if isinstance(part, Split)
            else LoaderSplit(part, name=key, num_classes=self.num_classes, classes_only=default_loss)
        )
        if isinstance(part, Split) and split.size == 0:
            raise DataError(f"task '{self.name}': the {key} split is empty")
        return split

    @property
    def scores(self) -> bool:
        """Whether the model gives one number, a score, and not one number a class."""
        return self.num_classes == 1 and self.labels is None

    def has(self, split: str) -> bool:
        """Whether there is such a split."""
        return split in self.splits

    def size(self, split: str) -> int:
        """How many samples a split has."""
        return self._split(split).size

    def steps(self, split: str, batch_size: int) -> int:
        """How many (global) batches one pass over a split has."""
        return self._split(split).steps(batch_size)

    def fixed(self, split: str, *, augment: bool = False) -> bool:
        """Whether a split's samples, known by their ids, are the same in every epoch."""
        return self._split(split).fixed(augment)

    @property
    def reported(self) -> str:
        """The split whose numbers are reported: the test split if there is one."""
        for name in ("test", "validation", "train"):
            if name in self.splits:
                return name
        return "calibration"

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        epoch: int | None = None,
        seed: int = 0,
        augment: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[Batch]:
        """Iterate over a split once.

        Without `epoch` the samples come in order. With it, their order is a function of (seed, epoch) and
        their augmentation one of (seed, epoch, sample id), the same in any number of processes.
        `batch_size` counts the samples of all processes; process `rank` of `world` gets its slice of each
        batch. The last batch may be smaller; a process gets a batch of no samples where there are fewer
        samples than processes, so that all take the same number of steps.
        """
        part = self._split(split)
        if batch_size < 1:
            raise DataError(f"the batch size is {batch_size}; it must be at least 1")
        if not 0 <= rank < world:
            raise DataError(
                f"process {rank} of {world}: the rank must be at least 0 and below the world size"
            )
        return part.batches(batch_size, epoch=epoch, seed=seed, augment=augment, rank=rank, world=world)

    def fingerprint(self) -> str:
        """A digest of the data, the splits and the preprocessing: a resumed run must find the same one."""
        parts = [f"{name}={split.size}:{split.digest()}" for name, split in self.splits.items()]
        return hashing.digest(self.name, str(self.preprocess), self.metric, *parts)

    def description(self) -> dict[str, Any]:
        """What a report says of the task."""
        return {
            "name": self.name,
            "source": self.source,
            "splits": {name: split.size for name, split in self.splits.items()},
            "num_classes": self.num_classes,
            "metric": self.metric,
            "reported": self.reported,
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split.size:,} {name}" for name, split in self.splits.items())
        classes = "" if self.num_classes is None else f", {self.num_classes} classes"
        classes = ", a score" if self.scores else classes
        return f"Task('{self.name}': {sizes}{classes})"

    def _split(self, name: str) -> Split:
        if name not in self.splits:
            raise DataError(f"task '{self.name}' has no split '{name}'{did_you_mean(name, self.splits)}")
        return self.splits[name]


def _on_all(_model: nn.Module, _labels: Any) -> AbstractContextManager[None]:
    return nullcontext()


def _as_they_are(outputs: Any, labels: Any) -> tuple[Any, Any]:
    return outputs, labels
