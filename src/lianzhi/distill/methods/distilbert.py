"""DistilBERT: Sanh, Debut, Chaumond and Wolf 2019 (1910.01108).

    loss = 5 · T² · KL of the probabilities + 2 · loss on labels + 1 · (1 - cos of the last hidden states)

On a corpus (task `corpus`) with masked-LM models the labels are the masked words and the probabilities those of every
token that counts: the paper's triple loss. On a classification task labels and probabilities are the task's.
The paper's student has the teacher's width and every second layer: ``student: {layers: [1, 3, 5, 8, 10, 12]}``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import Field, model_validator
from torch import Tensor, nn

from lianzhi.config import Config
from lianzhi.distill import losses
from lianzhi.distill.losses.kd import divergences
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.each_sample import mean_by_sample
from lianzhi.distill.methods.encoders import Both, check_both, run_both
from lianzhi.distill.methods.lesson import Lessons, Setting, Stage
from lianzhi.distill.methods.terms import require_some, weighted
from lianzhi.distill.transformer import layers_of
from lianzhi.errors import DataError
from lianzhi.tasks import Batch


class DistilBERTOptions(Config):
    """Options of the method `distilbert`."""

    soft: float = Field(default=5.0, ge=0, description="weight of the teacher's probabilities")
    hard: float = Field(
        default=2.0, ge=0, description="weight of the labels: masked words of a corpus, classes else; 0: none"
    )
    cosine: float = Field(default=1.0, ge=0, description="weight of the last hidden states")
    temperature: float = Field(default=2.0, gt=0)

    @model_validator(mode="after")
    def _something_counts(self) -> DistilBERTOptions:
        require_some({"soft": self.soft, "hard": self.hard, "cosine": self.cosine})
        return self


@registry.register(
    "distilbert",
    "The teacher's probabilities, the labels (masked words), and the direction of the last hidden states",
    paper="https://arxiv.org/abs/1910.01108",
    config=DistilBERTOptions,
)
def build(setting: Setting, options: DistilBERTOptions) -> Lessons:
    """One stage of three terms.

    >>> DistilBERTOptions().to_dict()
    {'soft': 5.0, 'hard': 2.0, 'cosine': 1.0, 'temperature': 2.0}

    Raises:
        RecipeError: teacher and student are one model.
        DataError: other classes or another vocabulary, or last hidden states of other widths.
        GraphError: a model has no list of like layers.
    """
    setting.require_labels(options.hard, "hard: 0")
    last = (layers_of(setting.student)[-1], layers_of(setting.teacher)[-1])
    both = check_both(setting, "distilbert", hidden=[last])
    widths = both.student[last[0]].shape[-1], both.teacher[last[1]].shape[-1]
    if widths[0] != widths[1] and options.cosine:
        raise DataError(
            f"distilbert compares hidden states as they are, and the student's are {widths[0]} wide, the teacher's "
            f"{widths[1]}; set cosine: 0, use minilm, or a student made of the teacher's layers"
        )

    def step(model: nn.Module, batch: Batch) -> dict[str, Any]:
        both = run_both(setting, batch.inputs, hidden=[last])
        parts = {"soft": (options.soft, _soft(both, options.temperature))}
        if options.hard:
            parts["hard"] = (options.hard, setting.loss(both.outputs, batch.labels))
        if options.cosine:
            states = both.student[last[0]], both.teacher[last[1]]
            parts["cosine"] = (options.cosine, losses.cosine(*states, mask=both.mask, by_sample=True))
        return weighted(parts)

    return Lessons([Stage("distilbert", step)])


def _soft(both: Both, temperature: float) -> Tensor:
    """T² · KL of the classes of each sample, or of the vocabulary at each token that counts."""
    return mean_by_sample(partial(divergences, temperature=temperature), *both.logits, both.mask)
