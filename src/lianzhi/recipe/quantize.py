"""The step `quantize`: scheme, observer, techniques, what stays float, and training with quantizers."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from lianzhi.config import Config
from lianzhi.recipe.qat import QAT, collect


class Quantize(Config):
    """Quantize weights and activations; `calibration` samples set the activations' ranges.

    With `method="qat"` the quantized model is trained as well, and options of training stand beside the others:

    >>> Quantize(method="qat", epochs=2, lsq=False).training.epochs
    2.0
    """

    kind: ClassVar[str] = "quantize"
    method: Literal["ptq", "qat"] = "ptq"
    calibration: int = Field(default=512, ge=1)
    batch_size: int = Field(default=64, ge=1, le=2**24)
    weights: str = "int8"
    activations: str = "int8"
    group_size: int | None = Field(default=None, description="of weights alone: so many inputs share a scale")
    layers: dict[str, str] = Field(
        default_factory=dict, description="patterns of layer names: int4, int8 or float; the first that fits"
    )
    ignore: tuple[str, ...] = Field(default=(), description="patterns of names of layers that stay float")
    techniques: tuple[str | dict[str, dict[str, Any] | None], ...] = ()
    observer: str = "mse"
    observer_options: dict[str, Any] = Field(default_factory=dict)
    reduce_range: bool | None = Field(default=None, description="7 bits; null: where the processor needs it")
    calibration_table: str | None = Field(
        default=None, description="ranges of an earlier run, in place of samples; beside the recipe's file"
    )
    where_faster: bool = Field(
        default=False, description="layers stay float that int8 makes slower here; they are timed"
    )
    max_drop: float | None = Field(
        default=None, ge=0, description="layers return to float until the validation metric falls by no more"
    )
    training: QAT | None = Field(default=None, description="of qat; its options may stand beside the others")

    @model_validator(mode="before")
    @classmethod
    def _collect_training(cls, values: Any) -> Any:
        return collect(values, set(cls.model_fields))

    @field_validator("ignore", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _goes_together(self) -> Quantize:
        if (self.method == "qat") != (self.training is not None):
            raise ValueError("'training' goes with 'method: qat'")
        if self.training is not None and self.max_drop is not None:
            raise ValueError("'max_drop' goes with 'method: ptq': qat trains what it would return to float")
        if self.training is not None and self.weights in ("float16", "bfloat16"):
            raise ValueError(f"'method: qat' trains for integers, and not for weights '{self.weights}'")
        if self.training is not None and self.group_size is not None:
            raise ValueError("'group_size' goes with 'method: ptq': qat learns a scale an output channel")
        if self.where_faster and self.activations != "int8":
            raise ValueError(
                "'where_faster' goes with activations 'int8': weights alone are computed in float"
            )
        return self

    @classmethod
    def keys(cls) -> list[str]:
        """The names of all options, those of training included."""
        return list(dict.fromkeys([*super().keys(), *QAT.keys()]))
