"""The options of a training run. Cheap to import: recipes are read without loading a training library."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lianzhi.config import Config

Decay = Annotated[float, Field(ge=0, lt=1)]
LEARNING_RATES = {
    **{"sgd": 0.05, "adam": 1e-3, "adamw": 1e-3, "rmsprop": 1e-3, "lamb": 5e-3},
    "adadelta": 1.0,
}


class TrainOptions(Config):
    """How to train. A number that means "when" is a share of the run below 1, and epochs from 1 on.

    >>> TrainOptions(epochs=5, optimizer="adamw").lr
    0.001
    >>> TrainOptions(schedule="cosin")
    Traceback (most recent call last):
        ...
    lianzhi.errors.RecipeError: TrainOptions: option 'schedule': Input should be 'cosine', ... (got 'cosin')
    """

    epochs: float = Field(
        default=10, ge=0, le=1e6, description="passes over the training part; 0.5 is half of one"
    )
    batch_size: int = Field(default=128, ge=1, le=2**24, description="samples of a batch, over all processes")
    max_steps: int | None = Field(
        default=None, ge=1, lt=2**53, description="stop after so many optimizer steps"
    )

    optimizer: Literal["sgd", "adam", "adamw", "rmsprop", "lamb", "adadelta"] = "sgd"
    lr: float = Field(default=0.05, gt=0, description="peak learning rate; the default is the optimizer's")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd and rmsprop")
    nesterov: bool = Field(default=True, description="of sgd")
    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.999), description="of adam, adamw and lamb")
    rms_decay: float = Field(default=0.99, ge=0, lt=1, description="of rmsprop's average of squares")
    rho: float = Field(default=0.95, ge=0, lt=1, description="of adadelta's averages of squares")
    weight_decay: float = Field(default=5e-4, ge=0)
    decay_all: bool = Field(default=True, description="false: no weight decay on biases and norm parameters")

    schedule: Literal["cosine", "step", "polynomial", "exponential", "constant"] = "cosine"
    warmup: float = Field(default=0.0, ge=0, description="linear warm-up: a share (< 1) or epochs")
    final: float = Field(
        default=0.0, ge=0, le=1, description="where cosine and polynomial end, as a share of lr"
    )
    milestones: tuple[float, ...] = Field(default=(0.5, 0.75), description="of step: shares (< 1) or epochs")
    gamma: float = Field(
        default=0.1, gt=0, le=1, description="factor a milestone (step), an epoch (exponential)"
    )
    power: float = Field(default=1.0, gt=0, description="of polynomial")

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    clip: float | None = Field(default=None, gt=0, description="largest norm of the gradient")
    accumulate: int = Field(default=1, ge=1, le=2**24, description="batches an optimizer step")
    augment: bool = True
    precision: Literal["f32", "bf16", "auto"] = Field(
        default="f32", description="auto: bf16 where the processor is quicker in it"
    )
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"

    keep: Literal["best", "last"] = Field(default="best", description="which weights the model ends with")
    save_every: float | None = Field(
        default=300.0,
        gt=0,
        description="seconds between checkpoints inside an epoch; null: at epoch ends only",
    )

    @model_validator(mode="before")
    @classmethod
    def _default_learning_rate(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("lr") is None:
            optimizer = values.get("optimizer", "sgd")
            values = {**values, "lr": LEARNING_RATES.get(str(optimizer), 0.05)}
        return values
