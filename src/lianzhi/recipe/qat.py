"""The training options of `quantize: {method: qat}`, which a recipe writes beside the step's other options."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from lianzhi.train.options import TrainOptions

# a network whose BatchNorms are folded has nothing that normalises: a rate of training from scratch would throw it off
LEARNING_RATES = {
    **{"sgd": 2e-4, "adam": 1e-5, "adamw": 1e-5, "rmsprop": 1e-5, "lamb": 1e-4},
    "adadelta": 1e-2,
}


class QAT(TrainOptions):
    """How a quantized model is trained: as any other, more gently, and without decay of what has one dimension.

    >>> QAT(epochs=2).lr, QAT(optimizer="adamw").lr
    (0.0002, 1e-05)
    """

    epochs: float = Field(default=1, ge=0, le=1e6)
    lr: float = Field(default=2e-4, gt=0, description="peak learning rate; the default is the optimizer's")
    weight_decay: float = Field(default=1e-4, ge=0)
    decay_all: bool = Field(default=False, description="true: weight decay on biases, norms and scales too")
    clip: float | None = Field(default=1.0, gt=0, description="largest norm of the gradient")
    lsq: bool = Field(default=True, description="scales are learned (1902.08153)")
    channels: float = Field(
        default=1.0, gt=0, le=1, description="share of each layer's output channels that train (2411.11038)"
    )
    freeze_bn: float = Field(
        default=0.0,
        ge=0,
        description="when BatchNorms that could not be folded keep their statistics: a share (< 1) or epochs",
    )
    distill: bool = Field(
        default=True, description="learn the float model's outputs; false: the task's loss alone"
    )
    temperature: float = Field(default=4.0, gt=0, description="of the distillation")
    alpha: float = Field(default=0.9, ge=0, le=1, description="of the distillation: its share of the loss")

    @model_validator(mode="before")
    @classmethod
    def _default_learning_rate(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("lr") is None:
            values = {**values, "lr": LEARNING_RATES.get(str(values.get("optimizer", "sgd")), 2e-4)}
        return values


def collect(values: Any, own: set[str]) -> Any:
    """Move options of training into `training`; `own` are the step's other options.

    >>> collect({"method": "qat", "epochs": 2, "calibration": 64}, {"method", "calibration", "training"})
    {'method': 'qat', 'calibration': 64, 'training': {'epochs': 2}}
    """
    if not isinstance(values, dict):
        return values
    given = {key: value for key, value in values.items() if key in QAT.model_fields and key not in own}
    inner = values.get("training")
    if values.get("method", "ptq") != "qat":
        if given or inner is not None:
            raise ValueError(f"'{next(iter(given), 'training')}' goes with 'method: qat', which trains")
        return values
    if isinstance(inner, QAT):
        inner = inner.to_dict()
    inner = {**(inner or {}), **given}
    if "batch_size" in values:
        inner.setdefault("batch_size", values["batch_size"])
    return {**{key: value for key, value in values.items() if key not in given}, "training": inner}
