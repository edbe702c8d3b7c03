"""Calibration batches: an iterable of batches as `example_inputs`, or of ``(batch, labels)``, checked one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from lianzhi.errors import DataError, RecipeError


def read(calibration: Iterable[Any], example_inputs: Any) -> Iterator[tuple[int, Any, Any]]:
    """Yield (index, inputs, labels); labels are None where a batch has none.

    >>> import torch
    >>> [labels for _, _, labels in read([(torch.zeros(2, 3), torch.ones(2))], torch.zeros(1, 3))]
    [tensor([1., 1.])]
    >>> import torch
    >>> [labels for _, _, labels in read([torch.zeros(2, 3)], torch.zeros(1, 3))]
    [None]

    Raises `DataError` if there is no batch, or one that does not look like `example_inputs`.
    """
    if isinstance(calibration, (Tensor, dict, str)) or not _iterates(calibration):
        raise RecipeError(
            f"calibration is a {type(calibration).__name__}; give an iterable of batches, such as [batch]"
        )
    kind, count = _kind(example_inputs), 0
    for index, item in enumerate(calibration):
        pair = isinstance(item, (tuple, list)) and len(item) == 2 and _kind(item[0]) == kind
        inputs, labels = (item[0], item[1]) if pair else (item, None)
        if kind == "tensor" and isinstance(inputs, (tuple, list)) and len(inputs) == 1:
            inputs = inputs[0]
        if _kind(inputs) != kind or batch_size(inputs) == 0:
            raise DataError(
                f"calibration batch {index} is a {type(item).__name__}; batches must look like example_inputs "
                f"(a {kind}), or be (batch, labels), and hold at least one sample"
            )
        yield index, inputs, labels
        count += 1
    if not count:
        raise DataError("calibration has no batches; an iterator can be read once only: give a list")


def _iterates(value: Any) -> bool:
    """By `__iter__`, or by `__getitem__` as a data set does."""
    return hasattr(value, "__iter__") or hasattr(value, "__getitem__")


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return "tensor"
    if isinstance(value, dict):
        return "dict"
    return "tuple" if isinstance(value, (tuple, list)) else type(value).__name__


def batch_size(inputs: Any) -> int:
    """The first dimension of the first tensor."""
    values = list(inputs.values()) if isinstance(inputs, dict) else inputs
    first = values if isinstance(values, Tensor) else next((v for v in values if isinstance(v, Tensor)), None)
    return 0 if first is None else int(first.shape[0]) if first.dim() else 1


def sample(value: Any, index: int, count: int) -> Any:
    """One sample of a batch of `count`, as a batch of one. What is not a tensor of the batch stays as it is."""
    if isinstance(value, Tensor):
        return value[index : index + 1] if value.dim() and len(value) == count else value
    if isinstance(value, dict):
        return {key: sample(item, index, count) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(sample(item, index, count) for item in value)
    return value
