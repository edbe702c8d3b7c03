"""Masked words with a teacher: MobileBERT, Sun et al. 2020 (2004.02984), equation 5.

    loss = one_hot · CE(s, word) + (1 - one_hot) · CE(s, softmax(t))       at the masked tokens, mean by sample

The student's head begins as the teacher's and is dropped afterwards; the matrix of its words is the embedding's. With
a corpus of pairs the question whether the second text follows is added, of a head of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lianzhi.distill.losses.parts import log_probabilities
from lianzhi.distill.methods.learner import Learner
from lianzhi.distill.methods.lesson import Setting
from lianzhi.distill.methods.terms import weighted
from lianzhi.errors import ArtifactError, RecipeError
from lianzhi.graph import device_of
from lianzhi.tasks import Batch
from lianzhi.tasks.corpus.masking import NOT_ASKED
from lianzhi.tasks.corpus.objective import mean_by_sample
from lianzhi.train import Step
from lianzhi.train.default_step import call


class WordHead(nn.Module):
    """MobileBERT's head of masked words without the matrix of words, which is the student's embedding."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.transform = copy.deepcopy(head.transform)
        self.rest = nn.Parameter(head.dense.weight.detach().clone())
        self.bias = nn.Parameter(head.decoder.bias.detach().clone())

    def forward(self, hidden: Tensor, words: Tensor) -> Tensor:
        """Logits (positions, vocabulary) of hidden states (positions, width) and words (vocabulary, embedding)."""
        return self.transform(hidden) @ torch.cat([words.t(), self.rest], dim=0) + self.bias


def masked_words(setting: Setting, *, one_hot: float, next_sentence: bool) -> tuple[Learner, Step]:
    """The student with its heads, and the step on batches of a corpus; the setting's teacher is the masked LM.

    Raises:
        ArtifactError: the teacher is no MobileBERT with a head of masked words.
        RecipeError: the student is no MobileBERT, or has embeddings or hidden states of another width.
    """
    body, teacher = _body(setting.student), setting.teacher
    predictions = getattr(getattr(teacher, "cls", None), "predictions", None)
    if getattr(teacher, "mobilebert", None) is None or not hasattr(predictions, "dense"):
        raise ArtifactError(
            f"mobilebert: the masked LM is a {type(teacher).__name__}; give a MobileBertForMaskedLM"
        )
    words = body.get_input_embeddings().weight
    if words.shape != teacher.get_input_embeddings().weight.shape or (  # type: ignore[operator]
        body.config.hidden_size != teacher.config.hidden_size  # type: ignore[union-attr]
    ):
        raise RecipeError(
            f"mobilebert: the student has {words.shape[1]} numbers a word and hidden states of {body.config.hidden_size}, "
            f"the masked LM {teacher.config.embedding_size} and {teacher.config.hidden_size}; "  # type: ignore[union-attr]
            f"give both the same embedding_size and hidden_size"
        )
    heads: dict[str, nn.Module] = {"words": WordHead(predictions)}
    if next_sentence:
        heads["next"] = nn.Linear(body.config.hidden_size, 2)
    return Learner(setting.student, heads), _step(setting, one_hot)


def _step(setting: Setting, one_hot: float) -> Step:
    def step(model: nn.Module, batch: Batch) -> dict[str, Any]:
        assert isinstance(model, Learner)
        pairs = isinstance(batch.labels, Mapping)
        labels = batch.labels["tokens"] if pairs else batch.labels
        asked = labels != NOT_ASKED
        body = _body(model.student)
        found = call(body, batch.inputs)
        logits = model.heads["words"](found.last_hidden_state[asked], body.get_input_embeddings().weight)
        with setting.running(device_of(model)) as running:
            teacher: Any = running
            wanted = teacher.cls(call(teacher.mobilebert, batch.inputs).last_hidden_state[asked])
        own = log_probabilities(logits)
        hard = functional.nll_loss(own, labels[asked], reduction="none")
        soft = -(log_probabilities(wanted).exp() * own).sum(-1)
        parts = {
            "hard": (one_hot, mean_by_sample(hard, asked)),
            "soft": (1 - one_hot, mean_by_sample(soft, asked)),
        }
        if pairs:
            follows = model.heads["next"](found.pooler_output)
            parts["next"] = (1.0, functional.cross_entropy(follows.float(), batch.labels["next"]))
        return weighted(parts)

    return step


def _body(student: nn.Module) -> Any:
    """The encoder of a MobileBERT classifier."""
    body = getattr(student, "mobilebert", None)
    if body is None:
        raise RecipeError(
            f"mobilebert: the student is a {type(student).__name__}, and masked words are learned by MobileBERT alone; "
            f"give student: {{name: huggingface, config: {{model_type: mobilebert, …}}}}, or no masked_lm"
        )
    return body
