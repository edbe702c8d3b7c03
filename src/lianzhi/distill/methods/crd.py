"""Contrastive representation distillation: Tian, Krishnan and Isola 2019 (1910.10699).

The last stage of both networks, averaged over its positions, goes through a linear layer of its own to 128 numbers of
length 1. Each is the anchor once; the other network's memory gives the positive, what it said of the same sample before,
and the negatives, what it said of 16384 samples of other classes. Weight 0.8 and the cross entropy; with `kd` the
authors' table takes soft 1 as well.

The authors draw 16384 negatives for each sample. Here the samples of a batch share one draw, of which those of a sample's
own class are left out for it and the others weighed up to 16384: the expectation is the same, and a matrix product
takes the place of gathering a gigabyte.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from lianzhi.distill import losses
from lianzhi.distill.losses.features import unit
from lianzhi.distill.losses.parts import wide
from lianzhi.distill.methods.by_features import (
    FeatureOptions,
    Layers,
    choose,
    embedding,
    lessons,
    require_shapes,
)
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.lesson import Lessons, Setting
from lianzhi.distill.methods.memory import Memory
from lianzhi.errors import RecipeError
from lianzhi.tasks import Batch


class CRDMethodOptions(FeatureOptions):
    """Options of the method `crd`."""

    weight: float = Field(default=0.8, ge=0, description="of the loss on features")
    negatives: int = Field(default=16384, ge=1, description="samples of the memory that a step compares with")
    tau: float = Field(default=0.07, gt=0, description="temperature of the similarities")
    size: int = Field(default=128, ge=1, description="numbers of an embedding")
    momentum: float = Field(default=0.5, ge=0, lt=1, description="of the memory")


@registry.register(
    "crd",
    "Tell the teacher's and student's view of one sample from views of two samples",
    paper="https://arxiv.org/abs/1910.10699",
    config=CRDMethodOptions,
)
def build(setting: Setting, options: CRDMethodOptions) -> Lessons:
    """One stage.

    Raises:
        RecipeError: the training samples have no numbers that stay, or there is only one sample.
    """
    layers = choose(setting, options, "last")
    _require_one_pair(layers)
    require_shapes("crd", [*layers.student, *layers.teacher], 2, 4)
    memory = Memory(_samples(setting), options.size)
    heads = {
        "student": nn.Linear(layers.student[0].shape[1], options.size),
        "teacher": nn.Linear(layers.teacher[0].shape[1], options.size),
        "memory": memory,
    }

    def compare(student: list[Tensor], teacher: list[Tensor], batch: Batch) -> Tensor:
        ours = unit(wide(heads["student"](embedding(student[0]))))
        theirs = unit(wide(heads["teacher"](embedding(teacher[0]))))
        return contrast(memory, ours, theirs, batch, options)

    return lessons(setting, options, "crd", layers, compare, heads)


def contrast(
    memory: Memory, student: Tensor, teacher: Tensor, batch: Batch, options: CRDMethodOptions
) -> Tensor:
    """The loss of embeddings (batch, size) against the memory, which has learned them afterwards."""
    samples = len(memory.classes)
    ids = batch.ids.to(student.device)
    chosen, mask = memory.draw(ids, batch.labels, min(options.negatives, samples))
    own = slice(None if batch.counts else 0)  # of a stand-in, which is nobody's, nothing is learned
    memory.fix_normalizers(student[own], teacher[own], chosen, options.tau)
    values = [
        losses.crd(
            anchors,
            others[ids],
            others[chosen],
            temperature=options.tau,
            samples=samples,
            normalizer=constant,
            mask=mask,
        )
        for anchors, others, constant in (
            (student, memory.teacher, memory.normalizers[0]),
            (teacher, memory.student, memory.normalizers[1]),
        )
    ]
    memory.remember(batch.ids[own], batch.labels[own], student[own], teacher[own], momentum=options.momentum)
    return values[0] + values[1]


def _samples(setting: Setting) -> int:
    """How many training samples there are; their numbers must be the same in every epoch."""
    task = setting.task
    if not task.fixed("train"):
        raise RecipeError(
            f"crd remembers every sample by its number, and those of '{task.name}' are positions in a loader, which "
            f"may shuffle; give the task a split of its own, or take another method"
        )
    samples = task.size("train")
    if samples < 2:
        raise RecipeError(
            f"crd compares samples, and '{task.name}' has {samples} to train on; take another method"
        )
    return samples


def _require_one_pair(layers: Layers) -> None:
    if len(layers.student) != 1:
        names = [feature.name for feature in layers.student]
        raise RecipeError(
            f"crd compares one layer with one, and {len(names)} pairs were named, of the student's {', '.join(names)}; "
            f"name one in student_layers and one in teacher_layers"
        )
