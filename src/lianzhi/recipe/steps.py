"""The steps of a recipe, as frozen options: what each does, its defaults, and what does not go together."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from lianzhi.config import Config
from lianzhi.errors import RecipeError, did_you_mean
from lianzhi.recipe.codebook import Pack, ShareWeights
from lianzhi.recipe.distill import Distill
from lianzhi.recipe.quantize import Quantize
from lianzhi.recipe.vocabulary import ReduceVocabulary
from lianzhi.train.options import TrainOptions

WEIGHT, TWO_OF_FOUR = "weight", "2:4"  # granularities of single weights
OF_WEIGHTS = ("l1", "hessian")  # criteria
BUDGETS = ("ratio", "macs", "parameters", "bytes", "latency")


class Train(TrainOptions):
    """Train on the task's own loss.

    >>> Train(epochs=2, lr=0.05).kind
    'train'
    """

    kind: ClassVar[str] = "train"


class Sparsify(TrainOptions):
    """Train with a penalty that drives whole channels to zero.

    `bn_l1` is L1 on the BatchNorm scales (Network Slimming, 1708.06519), `group_lasso` the norm of everything that
    goes with a channel (2301.12900), for models without BatchNorm too.
    """

    kind: ClassVar[str] = "sparsify"
    method: Literal["bn_l1", "group_lasso"] = "bn_l1"
    coefficient: float = Field(default=1e-4, ge=0)


class Prune(Config):
    """Remove channels, or single weights. One of `ratio`, `macs`, `parameters`, `bytes`, `latency` says how many.

    >>> Prune(ratio=0.5).criterion
    'l1'
    >>> Prune(ratio=0.5, macs=0.5)
    Traceback (most recent call last):
        ...
    lianzhi.errors.RecipeError: Prune: give exactly one of ratio, macs, parameters, bytes, latency (got ratio, macs)

    Of weights the smallest go: a `ratio`, or all below `quality` times their layer's standard deviation. With `gradual` the
    ratio rises while `refine` trains, over that part of it, and weights may come back; with `criterion` ``hessian`` those go
    whose removal costs least to second order:

    >>> Prune(granularity="weight", ratio=0.9, gradual=0.7, refine=Train(epochs=10)).every
    100

    With granularity ``2:4`` the two smaller of every four weights in a row of inputs go.

    In several `iterations` the `schedule` says how much is gone after each, and the step `refine` runs between them:

    >>> Prune(macs=0.5, iterations=3, refine=Train(epochs=1)).to_dict()["refine"]["train"]["epochs"]
    1.0
    """

    kind: ClassVar[str] = "prune"
    criterion: str = "l1"
    criterion_options: dict[str, Any] = Field(default_factory=dict)
    ratio: float | None = Field(default=None, gt=0, lt=1)
    macs: float | None = Field(default=None, gt=0, lt=1)
    parameters: float | None = Field(default=None, gt=0, lt=1)
    bytes: float | None = Field(default=None, gt=0, lt=1)
    latency: float | None = Field(default=None, gt=0, lt=1)
    target: str | None = Field(
        default=None, description="of latency: the runtime; null: the recipe's, or onnxruntime"
    )
    batch: int = Field(default=1, ge=1, description="of latency: samples a call")
    granularity: str | tuple[str, ...] = "channel"
    scope: Literal["global", "layer", "isomorphic", "sensitivity", "erk"] = "global"
    ratios: tuple[float, ...] = Field(
        default=(0.25, 0.5, 0.75), description="of scope sensitivity: the shares that are tried on each group"
    )
    aggregate: str = "mean"
    normalize: str = "none"
    calibration: int = Field(
        default=512, ge=1, description="calibration samples, for a criterion that reads data"
    )
    batch_size: int = Field(default=64, ge=1, description="of the calibration samples")
    round_to: int = Field(default=1, ge=1)
    min_channels: int = Field(default=1, ge=1)
    max_layer_ratio: float = Field(default=0.9, gt=0, le=1)
    ignore: tuple[str, ...] = ()
    reestimate: int = Field(default=0, ge=0, description="training batches for new BatchNorm statistics")
    iterations: int = Field(default=1, ge=1, le=1000)
    schedule: Literal["cubic", "linear"] = "cubic"
    refine: Config | None = Field(default=None, description="a train or distill step, run between iterations")
    quality: float | None = Field(
        default=None, gt=0, description="of weights: in place of a ratio; times a layer's standard deviation"
    )
    gradual: float | None = Field(
        default=None, gt=0, le=1, description="of weights: the part of refine over which the ratio rises"
    )
    every: int = Field(default=100, ge=1, description="of gradual: updates between new masks")
    feedback: bool = Field(
        default=False,
        description="of gradual: removed weights move on underneath; false: they stay where they were",
    )

    @field_validator("granularity", mode="before")
    @classmethod
    def _not_a_time(cls, value: Any) -> Any:
        return TWO_OF_FOUR if value == 124 else value  # YAML 1.1 reads 2:4 without quotes as 2 · 60 + 4

    @field_validator("ignore", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("refine", mode="before")
    @classmethod
    def _parse_refine(cls, value: Any) -> Any:
        if value is None:
            return None
        step = parse_step(value, "refine")
        if type(step) not in (Train, Distill):
            raise ValueError(
                f"is a 'train' or a 'distill' step, such as {{train: {{epochs: 1}}}}, not '{kind_of(step)}'"
            )
        return step

    @field_serializer("refine")
    def _dump_refine(self, step: Config | None) -> dict[str, Any] | None:
        return None if step is None else {kind_of(step): step.to_dict()}

    @model_validator(mode="after")
    def _fits(self) -> Prune:
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if self.removes_weights:
            self._fits_weights(given)
            return self
        for name in self._changed("every", "feedback"):
            raise ValueError(f"'{name}' goes with 'gradual'")
        for name in ("quality", "gradual"):
            if getattr(self, name) is not None:
                raise ValueError(f"'{name}' goes with granularity 'weight'")
        if self.scope == "erk":
            raise ValueError("scope 'erk' goes with granularity 'weight'")
        for alone in {WEIGHT, TWO_OF_FOUR} & set(self.granularity):
            raise ValueError(
                f"granularity '{alone}' stands alone: prune channels in a step of their own, before it"
            )
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(BUDGETS)} (got {', '.join(given) if given else 'none'})"
            )
        if self.removes_layers and (self.ratio is None or self.scope not in ("global", "layer")):
            raise ValueError(
                "granularity 'layers' takes a 'ratio' of the blocks, and no other budget or scope"
            )
        if self.normalize == "cost" and (self.ratio is not None or self.latency is not None):
            raise ValueError("normalize 'cost' goes with a budget that is counted: macs, parameters or bytes")
        if self.refine is not None and self.iterations == 1:
            raise ValueError("'refine' runs between iterations: set 'iterations' to 2 or more, or add a step")
        if not self.ratios or any(
            not left < right for left, right in zip((0.0, *self.ratios), (*self.ratios, 1.0), strict=True)
        ):
            raise ValueError(f"'ratios' {list(self.ratios)}: shares between 0 and 1, the smallest first")
        if self.scope == "sensitivity" and self.latency is not None:
            raise ValueError("scope 'sensitivity' meets ratio, macs, parameters or bytes; not latency")
        if self.scope == "sensitivity" and (self.ratio or 0.0) > self.ratios[-1]:
            raise ValueError(
                f"'ratio' {self.ratio} is above the largest of 'ratios' that sensitivity is measured at"
            )
        return self

    def _fits_weights(self, given: list[str]) -> None:
        """What goes with granularity 'weight' and '2:4'."""
        if self.two_of_four:
            free = ("granularity", "ignore", "reestimate")
            for name in self._changed(*(name for name in type(self).model_fields if name not in free)):
                raise ValueError(
                    f"'{name}' does not go with granularity '2:4', which takes two of every four weights, at once"
                )
            return
        if given != ([] if self.quality is not None else ["ratio"]):
            raise ValueError(
                "granularity 'weight' takes a 'ratio' of the weights or a 'quality', and no other budget"
            )
        structured = ("criterion_options", "aggregate", "normalize", "round_to", "min_channels")
        for name in self._changed(
            *structured, "max_layer_ratio", "target", "batch", "calibration", "batch_size"
        ):
            raise ValueError(f"'{name}' is of channels, and does not go with granularity 'weight'")
        if self.scope == "isomorphic":
            raise ValueError(
                "scope 'isomorphic' is of channels; for weights: global, layer, erk or sensitivity"
            )
        if self.quality is not None and (
            self.iterations > 1
            or self.gradual is not None
            or self.scope != "global"
            or self._changed("criterion")
        ):
            raise ValueError(
                "'quality' prunes each layer once: it goes without 'iterations', 'gradual', 'scope' and 'criterion'"
            )
        self._fits_criterion()
        if self.scope != "sensitivity" and self._changed("ratios"):
            raise ValueError("'ratios' goes with scope 'sensitivity'")
        if self.gradual is None and self.iterations == 1 and self._changed("schedule"):
            raise ValueError("'schedule' goes with 'gradual' or 'iterations', over which the ratio rises")
        if self.gradual is not None and (self.refine is None or self.iterations > 1):
            raise ValueError("'gradual' needs 'refine', during which the ratio rises, and no 'iterations'")
        if self.gradual is not None and isinstance(self.refine, TrainOptions) and not self.refine.epochs:
            raise ValueError("'gradual' needs a 'refine' that trains: its 'epochs' are 0")
        if self.gradual is None:
            for name in self._changed("every", "feedback"):
                raise ValueError(f"'{name}' goes with 'gradual'")
        if self.gradual is None and self.refine is not None and self.iterations == 1:
            raise ValueError(
                "'refine' runs with 'gradual' or between iterations: give one of them, or add a step"
            )

    def _fits_criterion(self) -> None:
        """Of single weights: the smallest go, or while they train those that cost least."""
        if self.criterion not in OF_WEIGHTS:
            raise ValueError(
                f"criterion '{self.criterion}' is none of granularity 'weight'{did_you_mean(self.criterion, OF_WEIGHTS)}"
            )
        if self.criterion == "hessian" and self.gradual is None:
            raise ValueError(
                "criterion 'hessian' of single weights reads the gradients of 'refine': it goes with 'gradual'"
            )
        if self.criterion == "hessian" and self.scope == "sensitivity":
            raise ValueError(
                "scope 'sensitivity' removes weights by magnitude; with criterion 'hessian' take global, layer or erk"
            )

    def _changed(self, *names: str) -> list[str]:
        """Those of some options that have not their default value."""
        fields = type(self).model_fields
        return [
            name
            for name in names
            if getattr(self, name) != fields[name].get_default(call_default_factory=True)
        ]

    @property
    def removes_weights(self) -> bool:
        """Whether single weights go, and all shapes stay."""
        return self.two_of_four or self.granularity in (WEIGHT, (WEIGHT,))

    @property
    def two_of_four(self) -> bool:
        """Whether of every four weights two go."""
        return self.granularity in (TWO_OF_FOUR, (TWO_OF_FOUR,))

    @property
    def removes_layers(self) -> bool:
        """Whether whole blocks go, not channels."""
        return self.granularity in ("layers", ("layers",))

    def budget(self) -> dict[str, Any]:
        """The one budget that was given, as a keyword argument."""
        return {name: getattr(self, name) for name in BUDGETS if getattr(self, name) is not None}


STEPS: dict[str, type[Config]] = {
    "train": Train,
    "sparsify": Sparsify,
    "prune": Prune,
    "distill": Distill,
    "quantize": Quantize,
    "reduce_vocabulary": ReduceVocabulary,
    "share_weights": ShareWeights,
    "pack": Pack,
}


def kind_of(step: Config) -> str:
    """The recipe name of a step's class.

    >>> kind_of(Quantize())
    'quantize'
    """
    for kind, cls in STEPS.items():
        if type(step) is cls:
            return kind
    known = ", ".join(cls.__name__ for cls in STEPS.values())
    raise RecipeError(f"{type(step).__name__} is not a step; steps are {known}")


def parse_step(value: Any, where: str) -> Config:
    """Make the step from ``{"prune": {...}}``, a bare name, or a step object."""
    if isinstance(value, Config):
        kind_of(value)
        return value
    if isinstance(value, str):
        value = {value: {}}
    if not isinstance(value, dict) or len(value) != 1:
        raise RecipeError(f"{where}: write one step an item, such as '- prune: {{ratio: 0.5}}'")
    kind, options = next(iter(value.items()))
    if kind not in STEPS:
        raise RecipeError(f"{where}: unknown step '{kind}'{did_you_mean(str(kind), STEPS)}")
    if options is not None and not isinstance(options, dict):
        raise RecipeError(f"{where}.{kind}: options must be a mapping, got {type(options).__name__}")
    try:
        return STEPS[kind](**{str(key): option for key, option in (options or {}).items()})
    except RecipeError as error:
        raise RecipeError(f"{where} ({kind}): {error}") from None
