"""One batch of samples, and which part of it a process gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

Inputs: TypeAlias = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """Samples for one step: what the model takes, what it should say, and which samples they are.

    `ids` are the int64 numbers of the samples, unique in their split. `total` counts the samples of the
    batch over all processes; ``len(ids)`` of them are here. `counts` is false of the stand-in that a process runs which
    has no sample of the batch: it takes part in every exchange, and is to be seen nowhere.
    """

    inputs: Inputs
    labels: Any
    ids: Tensor
    total: int
    counts: bool = True

    def __len__(self) -> int:
        return len(self.ids)


def share(count: int, rank: int, world: int) -> slice:
    """The slice of `count` samples that process `rank` of `world` gets: sizes differ by one at most.

    >>> [share(10, rank, 4) for rank in range(4)]
    [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None), slice(8, 10, None)]
    """
    size, more = divmod(count, world)
    start = rank * size + min(rank, more)
    return slice(start, start + size + (rank < more))


def cut(value: Any, where: slice) -> Any:
    """Samples of a tensor, or of a tuple, list or mapping of tensors.

    >>> import torch
    >>> cut({"ids": torch.arange(4)}, slice(1, 3))
    {'ids': tensor([1, 2])}
    """
    if isinstance(value, Mapping):
        return {key: cut(item, where) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(cut(item, where) for item in value)
    return value[where]
