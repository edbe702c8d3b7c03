"""The step `distill`: which method, teacher and student, and how they are trained."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, field_serializer, model_validator

from lianzhi.errors import did_you_mean
from lianzhi.recipe.specs import StudentSpec
from lianzhi.train.options import TrainOptions


class Distill(TrainOptions):
    """Train with a teacher: the model as it was before it was first compressed, or another artifact's folder.

    >>> Distill(method="pkd", student={"layers": 3}, options={"patience": 10}).student.layers
    3

    `options` are the method's own (``lianzhi list methods``), of which `temperature` and `alpha` can stand outside.
    `stages` change the options of training of a method's stages, by name. `cache`: the teacher's logits of all
    samples are computed once, and kept in the cache folder (true) or in a folder of one's own; `top_k` of them.
    """

    kind: ClassVar[str] = "distill"
    method: str = "kd"
    temperature: float | None = Field(default=None, gt=0, description="null: the method's own")
    alpha: float | None = Field(
        default=None, ge=0, le=1, description="weight of the soft loss; null: the method's"
    )
    teacher: str = Field(default="original", description="the model before it was compressed, or an artifact")
    student: StudentSpec | None = Field(default=None, description="null: the model as it is now")
    options: dict[str, Any] = Field(default_factory=dict, description="of the method")
    stages: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="options of training of a method's stages, by name"
    )
    cache: bool | str = Field(default=False, description="keep the teacher's logits: true, or a folder")
    top_k: int | None = Field(default=None, ge=1, description="of the cache: so many logits of each sample")

    @model_validator(mode="after")
    def _stages_train(self) -> Distill:
        for name, options in self.stages.items():
            unknown = [key for key in options if key not in TrainOptions.model_fields]
            if unknown:
                near = did_you_mean(unknown[0], TrainOptions.model_fields)
                raise ValueError(f"stages.{name}: unknown option '{unknown[0]}'{near}")
            if "label_smoothing" in options:
                raise ValueError(
                    f"stages.{name}: 'label_smoothing' is of the whole step; give it beside 'stages'"
                )
        if self.cache == "":
            raise ValueError("'cache' is an empty name; give true, false or a folder")
        if self.top_k is not None and not self.cache:
            raise ValueError("'top_k' is of the cache; add cache: true")
        return self

    @field_serializer("student")
    def _dump_student(self, student: StudentSpec | None) -> dict[str, Any] | None:
        return None if student is None else given(student)


def given(student: StudentSpec) -> dict[str, Any]:
    """A student as a recipe writes it."""
    values = {key: value for key, value in student.to_dict().items() if value not in (None, {})}
    if student.layers is None and student.init == "chosen":
        values.pop("init")
    return values
