"""Evaluation: every sample of a split exactly once, in one process or several."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from lianzhi.deploy.pytorch import call
from lianzhi.deploy.session import Outputs, Session
from lianzhi.errors import DataError
from lianzhi.measure.shown import shown
from lianzhi.processes import gathered, process


@dataclass(frozen=True)
class Evaluation:
    """The task's metrics over a split; `value` is the first of them, `metric`."""

    value: float
    metric: str
    metrics: dict[str, float]
    samples: int
    split: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)


def evaluate(
    predict: nn.Module | Callable[[Any], Any],
    task: Any,
    *,
    split: str | None = None,
    batch_size: int = 256,
    progress: bool = False,
    alone: bool = False,
) -> Evaluation:
    """Measure a module, a session or any function of inputs on a split of a task.

    ```python
    result = measure.evaluate(session, task, split="validation")
    print(result.metric, result.value)
    ```

    `split` defaults to the one that the task reports. A module runs in eval mode without gradients and gets
    its mode back. In a process group each process takes its slice of each batch, and all get the result of
    the whole; with `alone` this process evaluates everything by itself.
    """
    split = split or task.reported
    rank, world = (0, 1) if alone else process()
    outputs, labels, ids = [], [], []
    with _predictor(predict) as run, torch.inference_mode():
        batches = task.batches(split, batch_size, rank=rank, world=world)
        for batch in shown(
            batches, task.steps(split, batch_size), progress and rank == 0, f"evaluate {split}"
        ):
            if len(batch.ids):
                found, wanted = _on_cpu(run(batch.inputs)), _on_cpu(batch.labels)
                found, wanted = task.condense(found, wanted)
                outputs.append(found)
                labels.append(wanted)
                ids.append(batch.ids)
    found = (outputs, labels, ids)
    parts = [found] if alone else gathered(found)
    outputs, labels, ids = ([item for part in parts for item in part[index]] for index in range(3))
    if not outputs:
        raise DataError(f"the split '{split}' of task '{task.name}' is empty")
    order = torch.cat(ids)
    _check_once(order, task, split)
    whole, truth = _joined(outputs), _joined(labels)
    metrics = {name: float(metric(whole, truth)) for name, metric in task.metrics.items()}
    return Evaluation(metrics[task.metric], task.metric, metrics, len(order), split)


def _check_once(ids: torch.Tensor, task: Any, split: str) -> None:
    """Every sample exactly once, or there is no number."""
    if len(ids) != task.size(split) or len(torch.unique(ids)) != len(ids):
        raise DataError(
            f"split '{split}' of task '{task.name}' has {task.size(split)} samples, and the evaluation saw "
            f"{len(ids)}, {len(torch.unique(ids))} of them different; a loader must yield each sample once"
        )


@contextlib.contextmanager
def _predictor(predict: Any) -> Iterator[Callable[[Any], Any]]:
    """A function of inputs; a module is in eval mode meanwhile."""
    if not isinstance(predict, nn.Module):
        yield predict.by_name if isinstance(predict, Session) else predict
        return
    modes = [(module, module.training) for module in predict.modules()]
    predict.eval()
    device = next((tensor.device for tensor in predict.parameters()), torch.device("cpu"))
    try:
        yield lambda inputs: call(predict, _map(inputs, lambda tensor: tensor.to(device)))
    finally:
        predict.train(modes[0][1])
        for module, training in modes[1:]:
            module.training = training


def _map(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        found = {key: _map(item, function) for key, item in value.items()}
        return Outputs(found) if isinstance(value, Outputs) else found
    if isinstance(value, (tuple, list)):
        return tuple(_map(item, function) for item in value)
    return value


def _on_cpu(value: Any) -> Any:
    return _map(value, lambda tensor: tensor.detach().cpu())


def _joined(parts: list[Any]) -> Any:
    """Concatenate the batches of a tensor, or of each tensor of a tuple or dict."""
    first = parts[0]
    if isinstance(first, torch.Tensor):
        try:
            return torch.cat(parts)
        except RuntimeError as error:
            raise DataError(
                f"the model's outputs, or the labels, of two batches cannot be joined ({str(error).splitlines()[0]}); give the "
                f"task condense=, which makes one row a sample of what its metrics need"
            ) from None
    if isinstance(first, dict):
        joined = {
            key: _joined([part[key] for part in parts])
            for key in first
            if isinstance(first[key], torch.Tensor)
        }
        return Outputs(joined) if isinstance(first, Outputs) else joined
    return tuple(_joined([part[index] for part in parts]) for index in range(len(first)))
