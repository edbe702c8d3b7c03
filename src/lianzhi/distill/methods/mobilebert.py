"""MobileBERT: Sun et al. 2020 (2004.02984), with progressive knowledge transfer (section 3.3 and 4.3).

    transfer-1 … transfer-L  normalized · MSE of normalised feature maps + mean · Δmean² + variance · |Δvariance|
                             + attention · KL of attention; each of one layer, in the phase of that layer
    masked_lm                cross entropy with ½ the masked word + ½ the teacher's probabilities, on a corpus
    fine-tuning              the task's labels; with `alpha` the teacher's probabilities too

Feature maps are the outputs of blocks, which are as wide in the student as in the teacher, the inverted-bottleneck
BERT. In the phase of layer l that layer learns at the learning rate, what is below it at a tenth (`below`), and what
is above it not at all. Embeddings (`copied_embeddings.py`) and the head of masked words begin as the teacher's. As in the
authors' code mean, variance and normalisation are of each token, over the width. Both models are transformers' `mobilebert`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional

from lianzhi.config import Config
from lianzhi.distill import losses
from lianzhi.distill.capture import capture
from lianzhi.distill.layer_map import LayerMap
from lianzhi.distill.lengths import fitting
from lianzhi.distill.losses.parts import wide
from lianzhi.distill.losses.positions import as_bool, mean_of
from lianzhi.distill.methods import kd
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.copied_embeddings import copying, embeddings_of_both
from lianzhi.distill.methods.corpora import CorpusData, corpus_later
from lianzhi.distill.methods.encoders import check_both, check_heads, depths, mask_of, modules_of
from lianzhi.distill.methods.lesson import Lessons, Setting, Stage
from lianzhi.distill.methods.masked_words import masked_words
from lianzhi.distill.methods.phases import Slowed, run_until
from lianzhi.distill.methods.terms import require_some, require_unset, weighted
from lianzhi.distill.transformer import layers_of
from lianzhi.errors import DataError, RecipeError
from lianzhi.graph import device_of
from lianzhi.models.text.masked_lm import find_masked_lm, read_masked_lm
from lianzhi.tasks import Batch, Task
from lianzhi.tasks.same_tokens import require_same_vocabulary
from lianzhi.train import Step
from lianzhi.train.default_step import default_step
from lianzhi.train.options import TrainOptions

Pair = tuple[str, str]


class MobileBertOptions(Config):
    """Options of the method `mobilebert`."""

    masked_lm: str | None = Field(
        default=None,
        description="the teacher of transfer and of masked words: a Hugging Face folder of a MobileBertForMaskedLM "
        "(default: the teacher of the task, and no stage of masked words)",
    )
    corpus: CorpusData | None = Field(
        default=None, description="texts for all stages but the last (default: the task's)"
    )
    map: str | list[int] | list[tuple[int, int]] = Field(
        default="uniform", description="uniform, top, bottom; the teacher's layers for 1, 2, …; or pairs"
    )
    phase: dict[str, Any] = Field(
        default_factory=dict,
        description="options of training of every transfer stage: epochs, lr, max_steps, …",
    )
    below: float = Field(
        default=0.1, ge=0, le=1, description="share of the learning rate under the layer of a phase"
    )
    normalized: float = Field(default=100.0, ge=0, description="weight of the normalised feature maps")
    mean: float = Field(default=5000.0, ge=0, description="weight of the means")
    variance: float = Field(default=5.0, ge=0, description="weight of the variances")
    attention: float = Field(default=1.0, ge=0, description="weight of the attention")
    one_hot: float = Field(
        default=0.5, ge=0, le=1, description="share of the masked word; the rest is the teacher's"
    )
    copy_embeddings: bool = Field(default=True, description="begin with the teacher's embeddings")
    alpha: float = Field(
        default=0.0, ge=0, le=1, description="weight of the teacher's probabilities in fine-tuning"
    )
    temperature: float = Field(default=1.0, gt=0, description="of fine-tuning")

    @field_validator("phase")
    @classmethod
    def _trains(cls, values: dict[str, Any]) -> dict[str, Any]:
        TrainOptions(**values)
        if "label_smoothing" in values:
            raise ValueError("a phase has no labels to smooth; leave 'label_smoothing' out")
        if values.get("keep", "last") != "last":
            raise ValueError("no metric says which epoch of a phase is best; leave 'keep' out")
        return values

    @model_validator(mode="after")
    def _something_counts(self) -> MobileBertOptions:
        names = ("normalized", "mean", "variance", "attention")
        require_some({name: getattr(self, name) for name in names})
        if self.masked_lm is None:
            require_unset(self, "is of masked words, and there is no 'masked_lm'", "one_hot")
        if not self.alpha:
            require_unset(
                self,
                "is of the teacher's probabilities, whose weight 'alpha' is 0",
                "temperature",
            )
        return self

    @model_validator(mode="after")
    def _has_words(self) -> MobileBertOptions:
        if self.masked_lm is not None and (self.corpus is None or not self.corpus.masked):
            raise ValueError(
                "masked_lm needs masked words: give corpus: {data: …}, and do not set its 'masked' to 0"
            )
        return self


@registry.register(
    "mobilebert",
    "Layer by layer the teacher's feature maps and attention, then masked words, then the task",
    paper="https://arxiv.org/abs/2004.02984",
    config=MobileBertOptions,
)
def build(setting: Setting, options: MobileBertOptions) -> Lessons:
    """Stages `transfer-1`, `transfer-2`, …, `masked_lm` where there is one, `fine-tuning`.

    >>> MobileBertOptions(phase={"epochs": 0.5}).below
    0.1

    Raises:
        RecipeError: heads, embeddings or hidden states differ, the map does not fit, or the teacher is the student.
        DataError: other classes or vocabularies; the corpus is not there.
        ArtifactError: the masked LM is not there, or is none.
        GraphError: a model has no list of like layers, or no attention that can be read.
    """
    setting.require_labels(1 - options.alpha, "alpha: 1")
    learned, task = setting, None
    notes: list[str] = []
    if options.masked_lm is not None:
        teacher = read_masked_lm(find_masked_lm(options.masked_lm))
        require_same_vocabulary(setting.task, options.masked_lm, "masked_lm")
        learned = replace(setting, teacher=teacher, source=None)
    if options.corpus is not None:
        task = corpus_later("mobilebert", options.corpus, learned, notes)
    if learned is not setting:
        learned = replace(learned, task=fitting(setting.task, learned.teacher))
    stages = _transfer(learned, options, task)
    if options.masked_lm is not None and options.corpus is not None:
        asked = options.corpus.next_sentence
        learner, step = masked_words(learned, one_hot=options.one_hot, next_sentence=asked)
        stages.append(Stage("masked_lm", step, learner, task, choose=False))
    return Lessons([*stages, Stage("fine-tuning", _fine_tuning(setting, options))], notes=notes)


def _transfer(setting: Setting, options: MobileBertOptions, task: Callable[[], Task] | None) -> list[Stage]:
    """A stage for each pair of layers, from the bottom to the top."""
    layers = LayerMap.named(options.map, *depths(setting))
    if min(min(pair) for pair in layers.pairs) == 0:
        raise RecipeError(
            "mobilebert: a phase is of a layer, from 1; leave the embeddings (0) out of the map"
        )
    pairs = modules_of(setting, replace(layers, pairs=tuple(sorted(layers.pairs))))
    attention = pairs if options.attention else []
    check_heads(setting, "mobilebert", attention)
    both = check_both(setting, "mobilebert", hidden=pairs, attention=attention, same_outputs=False)
    widths = both.student[pairs[0][0]].shape[-1], both.teacher[pairs[0][1]].shape[-1]
    if widths[0] != widths[1]:
        raise DataError(
            f"mobilebert compares feature maps as they are, and the student's are {widths[0]} wide, the teacher's "
            f"{widths[1]}; give both the same hidden_size (they may differ inside: intra_bottleneck_size)"
        )
    prepare = copying(setting, task or (lambda: setting.task)) if options.copy_embeddings else None
    under = list(setting.student.get_submodule(embeddings_of_both(setting)[0]).parameters())
    names = layers_of(setting.student)
    stages: list[Stage] = []
    done = 0
    for pair in pairs:
        here = names.index(pair[0]) + 1
        stage = _phase(setting, options, pair, Slowed(under, options.below))
        stages.append(replace(stage, name=f"transfer-{here}", task=task, prepare=prepare))
        prepare = None
        learned = [setting.student.get_submodule(name) for name in names[done:here]]
        under = [*under, *(parameter for layer in learned for parameter in layer.parameters())]
        done = here
    return stages


def _phase(setting: Setting, options: MobileBertOptions, pair: Pair, slowed: Slowed) -> Stage:
    """Feature map and attention of one layer; what is above it does not run."""
    one, other = pair
    attention = [[one], [other]] if options.attention else [[], []]

    def step(model: nn.Module, batch: Batch) -> dict[str, Any]:
        slowed.note()
        with capture(setting.student, [one], attention=attention[0]) as mine:
            run_until(setting.student, one, batch.inputs)
        with (
            setting.running(device_of(setting.student)) as teacher,
            capture(teacher, [other], attention=attention[1]) as theirs,
        ):
            run_until(teacher, other, batch.inputs)
        mask = mask_of(batch.inputs)
        parts = _feature_maps(mine[one], theirs[other], mask, options)
        if options.attention:
            scores = mine.scores(one), theirs.scores(other)
            parts["attention"] = (options.attention, losses.attention_kl(*scores, mask=mask, by_sample=True))
        return weighted(parts)

    def shorten(model: nn.Module) -> None:
        slowed.shorten()

    return Stage("transfer", step, options=options.phase, choose=False, after_step=shorten)


def _feature_maps(
    student: Tensor, teacher: Tensor, mask: Tensor | None, options: MobileBertOptions
) -> dict[str, tuple[float, Tensor]]:
    """Normalised values, means and variances of each token, over the width."""
    student, teacher = wide(student), wide(teacher)
    shape = student.shape[-1:]
    pair = [functional.layer_norm(item, shape, eps=1e-12) for item in (student, teacher)]
    means = [item.mean(-1, keepdim=True) for item in (student, teacher)]
    spread = (student.var(-1, correction=0) - teacher.var(-1, correction=0)).abs()
    keep = as_bool(mask, tuple(spread.shape))
    return {
        "normalized": (options.normalized, losses.hidden_mse(*pair, mask=mask, by_sample=True)),
        "mean": (options.mean, losses.hidden_mse(*means, mask=mask, by_sample=True)),
        "variance": (options.variance, mean_of(spread, keep, by_sample=True)),
    }


def _fine_tuning(setting: Setting, options: MobileBertOptions) -> Step:
    """The labels, and with `alpha` the teacher of the task."""
    if not options.alpha:
        return default_step(setting.task, setting.training)
    check_both(setting, "mobilebert")
    return kd.make_step(
        setting.source or setting.teacher,
        alpha=options.alpha,
        temperature=options.temperature,
        loss=setting.loss,
    )
