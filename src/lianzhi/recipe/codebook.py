"""The steps of Deep Compression beside pruning: weights that share values, and the packed file."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from lianzhi.config import Config
from lianzhi.train.options import TrainOptions

# a centroid's gradient is the sum of its weights', so that sgd takes much smaller steps than on weights
LEARNING_RATES = {"sgd": 1e-4, "adam": 1e-4, "adamw": 1e-4, "rmsprop": 1e-4, "lamb": 1e-3}
# of weights; large steps throw them from value to value
MOVING_RATES = {**LEARNING_RATES, "sgd": 1e-3, "adadelta": 0.1}


class Moving(TrainOptions):
    """How weights are trained that are shared already, and still move from value to value: gently.

    >>> Moving(epochs=10).lr, Moving(optimizer="adam").lr
    (0.001, 0.0001)
    """

    epochs: float = Field(default=1, gt=0, le=1e6)
    lr: float = Field(default=1e-3, gt=0, description="peak learning rate; the default is the optimizer's")
    weight_decay: float = Field(default=0.0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _default_learning_rate(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("lr") is None:
            values = {**values, "lr": MOVING_RATES.get(str(values.get("optimizer", "sgd")), 1e-3)}
        return values


class ShareWeights(TrainOptions):
    """Let the weights of each layer share few values, and train these.

    >>> ShareWeights(bits={"conv*": 8, "fc*": 5}).lr
    0.0001
    >>> ShareWeights(bits=20)
    Traceback (most recent call last):
        ...
    lianzhi.errors.RecipeError: ShareWeights: option 'bits': 20 bits; give 1 to 16

    With `moving`, weights are trained first, each with the value nearest to it in its place, and change values. Both
    learn from one teacher:

    >>> ShareWeights(bits=3, moving={"epochs": 20}, epochs=5).moving.optimizer
    'sgd'

    With `rate` a layer's codes take so many bits a weight, in place of having so many:

    >>> ShareWeights(rate={"*embeddings*": 1.8, "*": 3.4}, moving={"epochs": 1}).rate["*"]
    3.4

    With `layerwise` every layer learns from the teacher's, as in the method of that name.
    """

    kind: ClassVar[str] = "share_weights"
    bits: int | dict[str, int] = Field(
        default=5, description="of a code; or patterns of layer names: the first that fits, others stay float"
    )
    rate: float | dict[str, float] | None = Field(
        default=None,
        description="in place of bits: what the codes take a weight, as entropy, zeros among them (or patterns, as for bits)",
    )
    max_drop: float | None = Field(
        default=None,
        ge=0,
        description="fewer bits, layer by layer, until the validation metric falls by more",
    )
    ignore: tuple[str, ...] = Field(
        default=(), description="patterns of names of layers that stay as they are"
    )
    init: Literal["linear", "density", "random", "kmeans++", "optimal"] = "linear"
    groups: int = Field(default=1, ge=1, description="codebooks a layer: one for each run of output channels")

    moving: Moving | None = Field(
        default=None,
        description="training before the values', in which weights still move from value to value; null: none",
    )

    epochs: float = Field(default=1, ge=0, le=1e6, description="of training the shared values; 0: none")
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop", "lamb"] = "adam"
    lr: float = Field(default=1e-4, gt=0, description="peak learning rate; the default is the optimizer's")
    weight_decay: float = Field(default=0.0, ge=0)
    decay_all: bool = Field(
        default=False, description="true: weight decay on shared values, biases and norms"
    )
    distill: bool = Field(default=True, description="learn a teacher's outputs; false: the task's loss alone")
    temperature: float = Field(default=4.0, gt=0, description="of the distillation")
    alpha: float = Field(default=0.9, ge=0, le=1, description="of the distillation: its share of the loss")
    layerwise: float = Field(
        default=0.0,
        ge=0,
        description="weight of what every layer gives, beside the outputs; 0: outputs alone",
    )
    teacher: str = Field(
        default="original", description="the model before it was compressed, or an artifact's folder"
    )

    @model_validator(mode="before")
    @classmethod
    def _default_learning_rate(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("lr") is None:
            values = {**values, "lr": LEARNING_RATES.get(str(values.get("optimizer", "adam")), 1e-4)}
        return values

    @field_validator("ignore", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("bits")
    @classmethod
    def _in_range(cls, value: int | dict[str, int]) -> int | dict[str, int]:
        numbers = value.values() if isinstance(value, dict) else [value]
        for number in numbers:
            if not 1 <= number <= 16:
                raise ValueError(f"{number} bits; give 1 to 16")
        if not list(numbers):
            raise ValueError("no pattern is given; name some layers, or give one number for all")
        return value

    @field_validator("bits", "rate", mode="before")
    @classmethod
    def _is_a_number(cls, value: Any) -> Any:
        given = value.values() if isinstance(value, dict) else [value]
        if any(isinstance(number, bool) for number in given):
            raise ValueError("true and false are no numbers of bits; give a number")
        return value

    @field_validator("rate")
    @classmethod
    def _above_zero(cls, value: float | dict[str, float] | None) -> float | dict[str, float] | None:
        if isinstance(value, dict) and not value:
            raise ValueError("no pattern is given; name some layers, or give one number for all")
        for number in value.values() if isinstance(value, dict) else [value]:
            if number is not None and not 0 < number <= 8:
                raise ValueError(f"{number:g} bits a weight; give more than 0 and at most 8")
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> ShareWeights:
        for name in ("bits", "max_drop", "init", "groups"):
            if self.rate is not None and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"'{name}' is of k-means, and 'rate' is not; leave one of them out")
        if self.max_drop is not None and isinstance(self.bits, dict):
            raise ValueError("with 'max_drop' the bits are searched, from one number 'bits' down")
        if self.layerwise and not self.trainings:
            raise ValueError("'layerwise' is of training, and nothing is trained; give epochs, or moving")
        for name in ("teacher", "temperature", "alpha", "layerwise"):
            if not self.distill and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"'{name}' is of the distillation, and 'distill' is false; leave one of them out"
                )
        return self

    @property
    def trainings(self) -> list[TrainOptions]:
        """What trains, in this order: the weights, if they move, then the values."""
        return [*([self.moving] if self.moving else []), *([self] if self.epochs else [])]


class Pack(Config):
    """Put the model into a `.lzc` file beside the artifact: codes and indices by Huffman's code, bit for bit.

    >>> Pack(other="float16").other
    'float16'
    """

    kind: ClassVar[str] = "pack"
    other: Literal["float32", "float16"] = Field(
        default="float32", description="float16: what floats is rounded first, shared values too"
    )
