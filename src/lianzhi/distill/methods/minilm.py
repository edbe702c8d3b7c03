"""MiniLM: Wang et al. 2020 (2002.10957) and 2021 (2012.15828): one layer of the student relates tokens as the teacher's.

    version 1: attention · KL of attention + value · KL of value relations            (as many heads on both sides)
    version 2: query · KL + key · KL + value · KL of relations                        (any heads, any widths)

Then the student is trained on the labels, as after any pre-training; with `alpha` on the teacher's probabilities
too. The papers relate the texts of a pre-training: `corpus`; without one they are the task's own training texts.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from lianzhi.config import Config
from lianzhi.distill import losses
from lianzhi.distill.losses.minilm_v2 import relation_kl
from lianzhi.distill.losses.relations import relation
from lianzhi.distill.methods import kd
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.corpora import CorpusData, corpus_later
from lianzhi.distill.methods.encoders import Both, check_both, run_both
from lianzhi.distill.methods.lesson import Lessons, Setting, Stage
from lianzhi.distill.methods.terms import require_some, require_unset, weighted
from lianzhi.distill.transformer import layers_of
from lianzhi.errors import RecipeError
from lianzhi.tasks import Batch
from lianzhi.train.default_step import default_step


class MiniLMOptions(Config):
    """Options of the method `minilm`."""

    version: Literal[1, 2] = 2
    student_layer: int | None = Field(default=None, ge=1, description="default: the last")
    teacher_layer: int | None = Field(
        default=None, ge=1, description="default: the last; 2012.15828 takes the 21st of BERT-large's 24"
    )
    relation_heads: int | None = Field(
        default=None, ge=1, description="of version 2; default: the most, up to 48, that divide both widths"
    )
    attention: float = Field(default=1.0, ge=0, description="weight of version 1's attention")
    query: float = Field(default=1.0, ge=0, description="weight of version 2's query relations")
    key: float = Field(default=1.0, ge=0, description="weight of version 2's key relations")
    value: float = Field(default=1.0, ge=0, description="weight of the value relations")
    corpus: CorpusData | None = Field(
        default=None, description="texts to relate, as of the task 'corpus'; default: the task's own"
    )
    alpha: float = Field(
        default=0.0, ge=0, le=1, description="weight of the teacher's probabilities at the end"
    )
    temperature: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _something_counts(self) -> MiniLMOptions:
        names = ("attention", "value") if self.version == 1 else ("query", "key", "value")
        require_some({name: getattr(self, name) for name in names})
        other = ("relation_heads", "query", "key") if self.version == 1 else ("attention",)
        require_unset(self, f"is not of version {self.version}", *other)
        if not self.alpha:
            require_unset(
                self,
                "is of the teacher's probabilities, whose weight 'alpha' is 0",
                "temperature",
            )
        return self


@registry.register(
    "minilm",
    "The student's tokens attend and relate as the teacher's do, in one layer; then the labels",
    paper="https://arxiv.org/abs/2012.15828",
    config=MiniLMOptions,
)
def build(setting: Setting, options: MiniLMOptions) -> Lessons:
    """Two stages, `relations` and `prediction`.

    >>> MiniLMOptions(version=1).relation_heads is None
    True

    Raises:
        RecipeError: a layer does not exist, teacher and student are one model, or a corpus goes with other than texts.
        DataError: there is no such corpus; version 1 and other numbers of heads; relation heads that do not divide
            a width; other classes.
        GraphError: a layer has no attention with queries, keys and values of its own.
    """
    setting.require_labels(1 - options.alpha, "alpha: 1")
    pair = (
        _layer(setting.student, options.student_layer, "student"),
        _layer(setting.teacher, options.teacher_layer, "teacher"),
    )
    both = check_both(setting, "minilm", attention=[pair], scores=options.version == 1)
    _relations(both, pair, options)

    def step(model: nn.Module, batch: Batch) -> dict[str, Any]:
        return weighted(_relations(run_both(setting, batch.inputs, attention=[pair]), pair, options))

    prediction = default_step(setting.task, setting.training)
    if options.alpha:
        prediction = kd.make_step(
            setting.source or setting.teacher,
            alpha=options.alpha,
            temperature=options.temperature,
            loss=setting.loss,
        )
    notes: list[str] = []
    texts = None if options.corpus is None else corpus_later("minilm", options.corpus, setting, notes)
    first = Stage("relations", step, task=texts, choose=False)
    return Lessons([first, Stage("prediction", prediction)], notes=notes)


def _relations(both: Both, pair: tuple[str, str], options: MiniLMOptions) -> dict[str, tuple[float, Tensor]]:
    """The terms of the first stage, with their weights."""
    student, teacher = pair
    rest: dict[str, Any] = {"mask": both.mask, "by_sample": True}
    values = (both.student.values(student), both.teacher.values(teacher))
    if options.version == 1:
        scores = (both.student.scores(student), both.teacher.scores(teacher))
        related = (relation(item, mask=both.mask) for item in values)
        return {
            "attention": (options.attention, losses.attention_kl(*scores, **rest)),
            "value": (options.value, losses.attention_kl(*related, **rest)),
        }
    rest["relation_heads"] = options.relation_heads
    queries = (both.student.queries(student), both.teacher.queries(teacher))
    keys = (both.student.keys(student), both.teacher.keys(teacher))
    return {
        "query": (options.query, relation_kl(*queries, **rest)),
        "key": (options.key, relation_kl(*keys, **rest)),
        "value": (options.value, relation_kl(*values, **rest)),
    }


def _layer(model: nn.Module, number: int | None, who: str) -> str:
    names = layers_of(model)
    if number is not None and number > len(names):
        raise RecipeError(
            f"{who}_layer: {number}, and the {who} has {len(names)} layers; give at most so many"
        )
    return names[-1 if number is None else number - 1]
