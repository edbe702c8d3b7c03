"""Calibration data: batches of inputs, checked before anything is computed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import fx

from lianzhi.errors import DataError
from lianzhi.graph import Graph
from lianzhi.tasks import Batch

Arguments = list[Any]


def calibration_batches(calibration: Iterable[Any], graph: Graph) -> list[Arguments]:
    """Every batch as the values of the graph's inputs, in order.

    A batch is a tensor, a tuple or a dict of tensors, as the example inputs are; or a pair of that and
    labels; or a task's `Batch`. Raises `DataError` that names the batch, for data that are empty, not
    finite, or of another shape or type than the example inputs. Where the length of tokens is free, batches differ in it.
    """
    if isinstance(calibration, torch.Tensor) or not isinstance(calibration, Iterable):
        raise DataError(
            f"calibration must be an iterable of batches, not {type(calibration).__name__}; "
            f"put one tensor into a list: [tensor]"
        )
    example = [*graph.args, *graph.kwargs.values()]
    names = [str(node.target) for node in graph.nodes if node.op == "placeholder"]
    batches = []
    for index, item in enumerate(calibration):
        values = _values(item, graph, index)
        for name, value, wanted in zip(names, values, example, strict=True):
            _check(f"calibration batch {index}: input '{name}'", value, wanted, graph.free_dims)
        _check_together(index, dict(zip(names, values, strict=True)), graph.free_dims)
        if values[0].shape[:1] != (0,):
            batches.append(values)
    if not batches:
        raise DataError(
            "the calibration data are empty; give at least one batch, better a few hundred samples"
        )
    return batches


@contextlib.contextmanager
def naming_the_batch(graph: Graph, batches: list[Arguments]) -> Iterator[None]:
    """Raise `DataError` that names the batch on which the model itself does not run, if the block fails for that reason.

    What no type or shape tells: ids beyond a table of embeddings, more tokens than a model has positions for.
    """
    try:
        yield
    except (IndexError, RuntimeError) as error:
        for index, batch in enumerate(batches):
            reason = _failure(graph, batch)
            if reason:
                raise DataError(
                    f"calibration batch {index}: the model does not run on it ({reason}); check that ids are in its "
                    f"vocabulary, and that texts are no longer than it takes"
                ) from error
        raise


def _failure(graph: Graph, batch: Arguments) -> str:
    interpreter = fx.Interpreter(graph.module)
    interpreter.extra_traceback = False
    try:
        with torch.no_grad():
            interpreter.run(*batch)
    except (IndexError, RuntimeError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return ""


def _values(item: Any, graph: Graph, index: int) -> Arguments:
    if isinstance(item, Batch):
        item = item.inputs
    count = len(graph.args) + len(graph.kwargs)
    if _is_pair(item, count):
        item = item[0]
    if isinstance(item, dict):
        missing = [name for name in graph.kwargs if name not in item]
        if missing or not graph.kwargs:
            wanted = ", ".join(graph.kwargs) or "a tensor or a tuple"
            raise DataError(
                f"calibration batch {index} has the keys {sorted(item)}, and the model takes {wanted}"
            )
        return [item[name] for name in graph.kwargs]
    values = list(item) if isinstance(item, (tuple, list)) else [item]
    if len(values) != count:
        raise DataError(f"calibration batch {index} holds {len(values)} inputs, and the model takes {count}")
    return values


def _is_pair(item: Any, count: int) -> bool:
    """Whether this is (inputs, labels), not a tuple of inputs."""
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        return False
    return count == 1 or isinstance(item[0], (tuple, list, dict))


def _check(where: str, value: Any, wanted: Any, skip: int) -> None:
    if not isinstance(value, torch.Tensor):
        raise DataError(f"{where} is a {type(value).__name__}, not a tensor")
    if value.dim() != wanted.dim() or value.shape[skip:] != wanted.shape[skip:]:
        shape = ", ".join(["any"] * skip + [str(size) for size in wanted.shape[skip:]])
        raise DataError(f"{where} has shape {tuple(value.shape)}, and the model takes ({shape})")
    if value.dtype != wanted.dtype:
        raise DataError(f"{where} has type {value.dtype}, and the model takes {wanted.dtype}")
    if value.is_floating_point() and not torch.isfinite(value).all():
        raise DataError(f"{where} holds NaN or infinite values; remove them from the calibration data")


def _check_together(index: int, values: dict[str, Any], free: int) -> None:
    """The dimensions that are free have the same size in every input."""
    shapes = {name: tuple(value.shape[:free]) for name, value in values.items() if value.dim() >= free}
    first = next(iter(shapes), "")
    for name, shape in shapes.items():
        if shape != shapes[first]:
            raise DataError(
                f"calibration batch {index}: input '{name}' has {shape} as batch and length, "
                f"and '{first}' has {shapes[first]}"
            )
