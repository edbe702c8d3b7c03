"""Recipes: a compression run as data. The YAML file, the Python call and the saved JSON are one thing.

A recipe names a model, a task, a target, a seed and a list of steps. It is validated as a whole before
anything runs; a key that nobody reads is an error with a suggestion.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Field, ValidationError, field_serializer, field_validator, model_validator

from lianzhi import files
from lianzhi.config import Config, explain
from lianzhi.errors import ArtifactError, RecipeError, did_you_mean
from lianzhi.train.options import TrainOptions

MOST_BYTES = 1 << 20
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


class Distill(TrainOptions):
    """Train with a teacher: the model as it was before it was first compressed, or another artifact's folder."""

    kind: ClassVar[str] = "distill"
    method: str = "kd"
    temperature: float = Field(default=4.0, gt=0)
    alpha: float = Field(default=0.9, ge=0, le=1)
    teacher: str = "original"


class Prune(Config):
    """Remove channels. Exactly one of `ratio`, `macs`, `parameters`, `bytes`, `latency` says how many.

    >>> Prune(ratio=0.5).criterion
    'l1'
    >>> Prune(ratio=0.5, macs=0.5)
    Traceback (most recent call last):
        ...
    lianzhi.errors.RecipeError: Prune: give exactly one of ratio, macs, parameters, bytes, latency (got ratio, macs)

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
    scope: Literal["global", "layer", "isomorphic", "sensitivity"] = "global"
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

    @property
    def removes_layers(self) -> bool:
        """Whether whole blocks go, not channels."""
        return self.granularity in ("layers", ("layers",))

    def budget(self) -> dict[str, Any]:
        """The one budget that was given, as a keyword argument."""
        return {name: getattr(self, name) for name in BUDGETS if getattr(self, name) is not None}


class Quantize(Config):
    """Quantize weights and activations; `calibration` samples set the activations' ranges."""

    kind: ClassVar[str] = "quantize"
    method: Literal["ptq"] = "ptq"
    calibration: int = Field(default=512, ge=1)
    batch_size: int = Field(default=64, ge=1, le=2**24)
    weights: str = "int8"
    activations: str = "int8"
    techniques: tuple[str, ...] = ()


STEPS: dict[str, type[Config]] = {
    "train": Train,
    "sparsify": Sparsify,
    "prune": Prune,
    "distill": Distill,
    "quantize": Quantize,
}


def _forward_extras(noun: str, allowed: Sequence[str]) -> Any:
    """Collect keys beside `allowed` into `options` (a zoo model's or a task's own configuration)."""

    def collect(values: Any) -> Any:
        if isinstance(values, str):
            values = {"name": values}
        if not isinstance(values, dict):
            return values
        given = values.get("options")
        if given is not None and not isinstance(given, dict):
            raise ValueError(f"'options' is a mapping of names and values, got {given!r:.60}")
        options = dict(given or {})
        for key in allowed:
            if key in options:
                raise ValueError(
                    f"'{key}' is no option of the {noun}'s own: it stands beside 'options' (in a command: --{key})"
                )
        options.update({key: value for key, value in values.items() if key not in (*allowed, "options")})
        return {**{key: values[key] for key in allowed if key in values}, "options": options}

    return collect


class ModelSpec(Config):
    """Which model: a zoo name, an artifact folder, or a function in a Python file of one's own."""

    name: str | None = None
    artifact: str | None = None
    file: str | None = None
    weights: str | None = None
    num_classes: int | None = Field(default=None, ge=1)
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _collect(cls, values: Any) -> Any:
        return _forward_extras("model", ("name", "artifact", "file", "weights", "num_classes"))(values)

    @model_validator(mode="after")
    def _one_source(self) -> ModelSpec:
        if self.artifact is not None and (self.name or self.file or self.weights or self.options):
            raise ValueError("an artifact brings its own architecture and weights: give 'artifact' alone")
        if self.name is None and self.artifact is None:
            raise ValueError("give 'name' (a zoo model, or with 'file' a function in it) or 'artifact'")
        return self


class TaskSpec(Config):
    """Which task: its name, where its data is, and the options of its reader."""

    name: str
    data: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _collect(cls, values: Any) -> Any:
        return _forward_extras("task", ("name", "data"))(values)


class Measure(Config):
    """How latency is measured: batch sizes, threads (default: all cores), repeats."""

    batches: tuple[Annotated[int, Field(ge=1, le=2**24)], ...] = (1, 64)
    threads: int | None = Field(default=None, ge=1, le=1024)
    repeats: int = Field(default=50, ge=1, le=10**6)
    choose_batch: int = Field(default=1, ge=1)
    max_drop: float = Field(default=0.01, ge=0, le=1)

    @model_validator(mode="after")
    def _chosen_is_measured(self) -> Measure:
        if self.choose_batch not in self.batches:
            raise ValueError(
                f"'choose_batch' {self.choose_batch} is not one of 'batches' {list(self.batches)}"
            )
        return self


class Recipe(Config):
    """One run: model, task, steps, target, seed."""

    model: ModelSpec | None = None
    task: TaskSpec | None = None
    steps: tuple[Config, ...]
    target: str = "auto"
    precision: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**31)
    device: str = "cpu"
    measure: Measure = Measure()
    versions: dict[str, str] = Field(default_factory=dict)

    @field_validator("steps", mode="before")
    @classmethod
    def _parse_steps(cls, values: Any) -> Any:
        if not isinstance(values, (list, tuple)):
            raise ValueError("must be a list of steps, such as '- prune: {ratio: 0.5}'")
        if not values:
            raise ValueError(f"is empty: give at least one of {', '.join(STEPS)}")
        return tuple(parse_step(value, f"steps.{index}") for index, value in enumerate(values))

    @field_serializer("steps")
    def _dump_steps(self, steps: tuple[Config, ...]) -> list[dict[str, Any]]:
        return [{kind_of(step): step.to_dict()} for step in steps]

    def to_yaml(self) -> str:
        """The recipe with every default filled in."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def to_dict(self) -> dict[str, Any]:
        """Every option, flat where YAML is flat."""
        data = super().to_dict()
        for part in ("model", "task"):
            if data[part] is not None:
                options = data[part].pop("options")
                data[part] = {key: value for key, value in data[part].items() if value is not None} | options
        return data


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


def expand(value: Any) -> Any:
    """Fill in ``${NAME}`` from the environment, and a leading ``~/`` as the shell does, everywhere in a nested value.

    >>> os.environ["LIANZHI_DOC"] = "/data"
    >>> expand({"data": "${LIANZHI_DOC}/cifar10"})
    {'data': '/data/cifar10'}
    """
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise RecipeError(
                    f"the key {key!r} is not a word; put it in quotes (YAML reads on, off, yes and no as true and false)"
                )
        return {key: expand(item) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item) for item in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise RecipeError(
                f"the recipe uses ${{{name}}}, and the environment variable {name} is not set; "
                f"put {name}=… in front of the command"
            )
        return os.environ[name]

    filled = re.sub(r"\$\{(\w+)\}", fill, value)
    return os.path.expanduser(filled) if filled.startswith("~/") else filled


def override(data: dict[str, Any], assignment: str) -> None:
    """Apply one ``steps.1.ratio=0.6`` to the recipe's raw data. `steps.1` is the second step.

    >>> raw = {"steps": [{"train": {}}, {"prune": {"ratio": 0.5}}]}
    >>> override(raw, "steps.1.ratio=0.6"); raw["steps"][1]
    {'prune': {'ratio': 0.6}}
    """
    path, equals, text = assignment.partition("=")
    if not equals:
        raise RecipeError(f"--set {assignment}: write it as KEY=VALUE, such as steps.1.ratio=0.6")
    keys, value = path.strip().split("."), files.parse_yaml(text, f"--set {path.strip()}")
    here: Any = data
    for position, key in enumerate(keys):
        last = position == len(keys) - 1
        if isinstance(here, list):
            if not (key.isascii() and key.isdigit()) or int(key) >= len(here):
                raise RecipeError(f"--set {path}: '{key}' is not the index of one of {len(here)} steps")
            if isinstance(here[int(key)], str) and not last:
                here[int(key)] = {here[int(key)]: {}}
            if last:
                here[int(key)] = value
                return
            here = here[int(key)]
            if not isinstance(here, dict) or len(here) != 1:
                raise RecipeError(f"--set {path}: step {key} is not written as '- prune: {{ratio: 0.5}}'")
            kind = next(iter(here))
            if here[kind] is None:
                here[kind] = {}
            if keys[position + 1] != kind:
                here = here[kind]
        elif not isinstance(here, dict):
            raise RecipeError(f"--set {path}: '{'.'.join(keys[:position])}' is a value, not a section")
        elif last:
            here[key] = value
        else:
            if isinstance(here.get(key), str) and key in ("model", "task"):
                here[key] = {"name": here[key]}
            if here.get(key) is None:
                here[key] = {}
            here = here[key]


def parse(data: Any, *, where: str = "recipe") -> Recipe:
    """Validate raw recipe data."""
    if not isinstance(data, dict):
        raise RecipeError(f"{where}: a recipe is a mapping with model, task and steps")
    try:
        return Recipe.model_validate(expand(data))
    except ValidationError as error:
        raise RecipeError(f"{where}: {explain(Recipe, error)}") from None
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from None


def load(path: str | os.PathLike[str], *, overrides: Sequence[str] = ()) -> Recipe:
    """Read a YAML recipe, apply `overrides` (``KEY=VALUE``), and validate it."""
    file = Path(path)
    if not file.exists():
        raise RecipeError(f"{file}: no such recipe file{_ready_recipes(file)}")
    try:
        text = files.read_text(file, MOST_BYTES)
    except ArtifactError as error:
        raise RecipeError(f"{error}; give the path of a YAML recipe") from None
    data = files.parse_yaml(text, str(file))
    if not isinstance(data, dict):
        raise RecipeError(f"{file}: a recipe is a mapping with model, task and steps")
    for assignment in overrides:
        override(data, assignment)
    return parse(data, where=str(file))


def _ready_recipes(file: Path) -> str:
    folder = file.parent
    known = sorted(str(item) for item in folder.glob("*.yaml")) if folder.is_dir() else []
    return did_you_mean(str(file), known) if known else ""
