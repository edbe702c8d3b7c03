"""Metrics of the table of truth against prediction: precision, recall, F1, and Matthews' correlation.

They are of a whole split: their mean over batches is another number. Where a share is of nothing (no sample was
predicted positive, say) it is 0. The values are those of scikit-learn's functions of the same names.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lianzhi.tasks.metrics import Metric, top1
from lianzhi.tasks.outputs import logits_of


def confusion(outputs: Any, labels: Tensor) -> Tensor:
    """Numbers of samples of shape (true class, predicted class), as float64.

    >>> confusion(torch.eye(2)[[0, 1, 1]], torch.tensor([0, 0, 1])).tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    logits = logits_of(outputs)
    classes = max(logits.shape[1], int(labels.max()) + 1)
    places = labels * classes + logits.argmax(1)
    return torch.bincount(places, minlength=classes**2).view(classes, classes).double()


def precision(outputs: Any, labels: Tensor) -> float:
    """Of the samples predicted to be of class 1, the share that is.

    >>> precision(torch.eye(2)[[0, 1, 1, 1]], torch.tensor([0, 0, 1, 1]))
    0.6666666666666666
    """
    table = confusion(outputs, labels)
    return float(_share(table[1, 1], table[:, 1].sum()))


def recall(outputs: Any, labels: Tensor) -> float:
    """Of the samples of class 1, the share predicted to be.

    >>> recall(torch.eye(2)[[0, 1, 1, 0]], torch.tensor([0, 0, 1, 1]))
    0.5
    """
    table = confusion(outputs, labels)
    return float(_share(table[1, 1], table[1].sum()))


def f1(outputs: Any, labels: Tensor) -> float:
    """The harmonic mean of precision and recall of class 1.

    >>> f1(torch.eye(2)[[0, 1, 1, 0]], torch.tensor([0, 0, 1, 1]))
    0.5
    """
    table = confusion(outputs, labels)
    return float(_share(2 * table[1, 1], table[1].sum() + table[:, 1].sum()))


def macro_precision(outputs: Any, labels: Tensor) -> float:
    """The mean over classes of a class's precision; a class that is neither predicted nor there does not count."""
    table = confusion(outputs, labels)
    return _mean(table, _share(table.diag(), table.sum(0)))


def macro_recall(outputs: Any, labels: Tensor) -> float:
    """The mean over classes of a class's recall; a class that is neither predicted nor there does not count."""
    table = confusion(outputs, labels)
    return _mean(table, _share(table.diag(), table.sum(1)))


def macro_f1(outputs: Any, labels: Tensor) -> float:
    """The mean over classes of a class's F1; a class that is neither predicted nor there does not count.

    >>> macro_f1(torch.eye(3)[[0, 1, 1]], torch.tensor([0, 0, 1]))
    0.6666666666666666
    """
    table = confusion(outputs, labels)
    return _mean(table, _share(2 * table.diag(), table.sum(0) + table.sum(1)))


def matthews(outputs: Any, labels: Tensor) -> float:
    """Matthews' correlation coefficient (1975), -1 to 1; of more than two classes Gorodkin's R_K (2004).

    >>> matthews(torch.eye(2)[[0, 1, 1, 0]], torch.tensor([0, 0, 1, 1]))
    0.0
    """
    table = confusion(outputs, labels)
    total, predicted, true = table.sum(), table.sum(0), table.sum(1)
    above = table.diag().sum() * total - predicted @ true
    below = (total**2 - predicted @ predicted) * (total**2 - true @ true)
    return float(_share(above, below.sqrt()))


def class_metrics(classes: int) -> dict[str, Metric]:
    """Accuracy first, then those of class 1 where there are two, else means over classes.

    >>> list(class_metrics(2)), list(class_metrics(3))[:2]
    (['accuracy', 'f1', 'precision', 'recall', 'matthews'], ['accuracy', 'macro_f1'])
    """
    if classes == 2:
        return {
            "accuracy": top1,
            "f1": f1,
            "precision": precision,
            "recall": recall,
            "matthews": matthews,
        }
    return {
        "accuracy": top1,
        "macro_f1": macro_f1,
        "macro_precision": macro_precision,
        "macro_recall": macro_recall,
        "matthews": matthews,
    }


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole, 0.0)


def _mean(table: Tensor, values: Tensor) -> float:
    there = table.sum(0) + table.sum(1) > 0
    return float(values[there].mean())
