"""The loss and the metrics of masked words and of the question whether a text follows another.

Devlin et al. 2019 (1810.04805). The loss is the mean over samples of the mean over a sample's masked tokens, not the
mean over all masked tokens of the batch: so several processes, and batches that are accumulated, have the
gradient of one large batch, however long their texts are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lianzhi.errors import DataError
from lianzhi.tasks.corpus.masking import NOT_ASKED


def corpus_loss(outputs: Any, labels: Any) -> Tensor:
    """Cross entropy of the tokens asked for, and of what follows where that is asked.

    >>> logits, labels = torch.zeros(2, 3, 8), torch.tensor([[-100, 5, -100], [1, 2, -100]])
    >>> round(corpus_loss(logits, labels).item(), 4)            # log 8
    2.0794

    Outputs are logits of shape (batch, tokens, vocabulary), or of the tokens that are asked for alone, (1, asked,
    vocabulary), in their order; or a dict with ``logits`` or ``prediction_logits`` and, where `labels` is a dict of
    ``tokens`` and ``next``, ``seq_relationship_logits`` of shape (batch, 2).

    Raises:
        DataError: nothing is asked, or the model has no such outputs.
    """
    tokens = labels["tokens"] if isinstance(labels, Mapping) else labels
    loss = masked_cross_entropy(token_logits(outputs), tokens)
    if isinstance(labels, Mapping):
        loss = loss + functional.cross_entropy(_next_logits(outputs).float(), labels["next"])
    return loss


def masked_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over samples of the mean cross entropy over each sample's labels that are not -100."""
    asked = labels != NOT_ASKED
    if not bool(asked.any()):
        raise DataError("corpus: no token is masked, so there is no loss; give masked: 0.15")
    if logits.ndim == 3 and logits.shape[:2] == labels.shape:
        logits = logits[asked]
    elif logits.ndim == 3 and logits.shape[:2] == (1, int(asked.sum())):
        logits = logits[0]
    else:
        raise DataError(
            f"the model's logits have shape {list(logits.shape)}, and the labels {list(labels.shape)}; masked words "
            f"need a model with a masked-LM head: (batch, tokens, vocabulary)"
        )
    losses = functional.cross_entropy(logits.float(), labels[asked], reduction="none")
    return mean_by_sample(losses, asked)


def mean_by_sample(values: Tensor, asked: Tensor) -> Tensor:
    """The mean over samples of the mean over a sample's values, of the positions that are asked for, in a row.

    >>> mean_by_sample(torch.tensor([1.0, 3.0, 6.0]), torch.tensor([[True, True], [False, True]])).item()
    4.0
    """
    counts = asked.sum(1)
    weights = (1.0 / counts.clamp(min=1))[:, None].expand_as(asked)[asked]
    return (values * weights.to(values.dtype)).sum() / (counts > 0).sum().clamp(min=1)


def condensed(outputs: Any, labels: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Right answers and questions of each sample, which can be joined where texts of several lengths cannot."""
    tokens = labels["tokens"] if isinstance(labels, Mapping) else labels
    asked = tokens != NOT_ASKED
    right = (token_logits(outputs).argmax(-1) == tokens) & asked
    answers, questions = {"tokens": right.sum(1)}, {"tokens": asked.sum(1)}
    if isinstance(labels, Mapping):
        answers["next"] = (_next_logits(outputs).argmax(-1) == labels["next"]).long()
        questions["next"] = torch.ones_like(answers["next"])
    return answers, questions


def masked_accuracy(outputs: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> float:
    """The share of masked tokens that are found; of what `condensed` gives."""
    return float(outputs["tokens"].sum() / labels["tokens"].sum().clamp(min=1))


def next_accuracy(outputs: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> float:
    """The share of pairs told right."""
    return float(outputs["next"].sum() / labels["next"].sum().clamp(min=1))


def token_logits(outputs: Any) -> Tensor:
    """The logits of tokens among a model's outputs.

    Raises:
        DataError: there are none.
    """
    found = outputs
    if isinstance(outputs, Mapping):
        found = outputs.get("prediction_logits", outputs.get("logits"))
    if not isinstance(found, Tensor):
        raise DataError(
            f"the model returns a {type(outputs).__name__}; masked words need logits of shape "
            f"(batch, tokens, vocabulary): a tensor, or a dict with 'logits' or 'prediction_logits'"
        )
    return found


def _next_logits(outputs: Any) -> Tensor:
    found = outputs.get("seq_relationship_logits") if isinstance(outputs, Mapping) else None
    if not isinstance(found, Tensor):
        raise DataError(
            "next_sentence asks whether the second text follows, and the model has no output "
            "'seq_relationship_logits'; train a ...ForPreTraining model, or set next_sentence: false"
        )
    return found
