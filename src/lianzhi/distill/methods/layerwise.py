"""Layer by layer: a student that has the teacher's own layers learns to compute inside what the teacher computes.

    loss = (1 - alpha) · task's loss + alpha · T² · KL + weight · mean over layers of MSE(student's, teacher's) / m

It is for models whose weights were removed, shared or rounded: each layer is there still, and as wide as it was. m is the
mean square of what the teacher's layer gives for the first batch of training data, so that all layers count alike. It is the
hint of FitNets, Romero et al. 2014 (1412.6550), for every layer at once.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from lianzhi.config import Config
from lianzhi.distill import losses
from lianzhi.distill.capture import capture
from lianzhi.distill.losses.kd import divergences
from lianzhi.distill.losses.parts import require_same_shape, wide
from lianzhi.distill.methods.by_logits import Loss, on_labels
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.each_sample import mean_by_sample
from lianzhi.distill.methods.encoders import check_both, mask_of
from lianzhi.distill.methods.lesson import Lessons, Setting, Stage
from lianzhi.distill.methods.teacher import logits_of, placed
from lianzhi.distill.methods.terms import require_unset, weighted
from lianzhi.distill.outputs import output_names, watched
from lianzhi.distill.transformer import embeddings_of, layers_of
from lianzhi.errors import DataError, GraphError, RecipeError, did_you_mean
from lianzhi.graph import device_of, get_tensor, in_eval, moved
from lianzhi.tasks import Batch
from lianzhi.train.default_step import Step, call

DROPOUTS = {
    (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout): "p",
    (nn.MultiheadAttention, nn.RNNBase): "dropout",
}


class LayerwiseOptions(Config):
    """Options of the method `layerwise`."""

    layers: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="patterns of modules' names; null: a row of like blocks and the embeddings before it, else all with weights",
    )
    weight: float = Field(default=1.0, gt=0, description="of what the layers give")
    alpha: float = Field(default=0.9, ge=0, le=1, description="weight of the teacher's probabilities")
    temperature: float = Field(default=4.0, gt=0)
    dropout: bool = Field(
        default=False, description="the student's dropout while it learns: noise on all that is compared"
    )

    @model_validator(mode="after")
    def _temperature_counts(self) -> LayerwiseOptions:
        if not self.alpha:
            require_unset(self, "is of the teacher's probabilities, whose weight 'alpha' is 0", "temperature")
        return self


@registry.register(
    "layerwise",
    "Every layer of a pruned, shared or rounded model gives what the same layer of the teacher gives",
    config=LayerwiseOptions,
)
def build(setting: Setting, options: LayerwiseOptions) -> Lessons:
    """One stage: labels, the teacher's probabilities, and what its layers give.

    >>> LayerwiseOptions(layers=["fc*"], weight=10).alpha
    0.9

    Raises:
        RecipeError: teacher and student are one model, the teacher's logits are kept, or labels are smoothed and not read.
        DataError: other classes or another vocabulary, a layer of another width, or one that gives no numbers or only zeros.
        GraphError: a pattern fits no module, or a layer is not in both, or runs more than once.
    """
    names = looks(setting.teacher, setting.task.example_inputs, options.layers)
    both = check_both(setting, "layerwise", hidden=[(name, name) for name in names])
    for name in names:
        shapes = [list(side[name].shape) for side in (both.student, both.teacher)]
        if shapes[0] != shapes[1]:
            raise DataError(
                f"layerwise compares layers as they are, and the student's '{name}' gives {shapes[0]}, the teacher's "
                f"{shapes[1]}; use kd, fitnet or tinybert for a student of other widths"
            )
    setting.require_labels(1 - options.alpha, "alpha: 1")
    first = next(iter(setting.task.batches("train", setting.training.batch_size)))
    step = make_step(
        setting.teacher,
        _counted(mean_squares(setting.teacher, first.inputs, names), options),
        weight=options.weight,
        temperature=options.temperature,
        alpha=options.alpha,
        dropout=options.dropout,
        loss=setting.loss,
    )
    return Lessons([Stage("layerwise", step)])


def looks(model: nn.Module, example_inputs: Any, patterns: Iterable[str] | None = None) -> list[str]:
    """The modules whose outputs are compared: of these names; else a row of like blocks and the embeddings before it; else all with weights.

    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> looks(net, torch.ones(1, 4)), looks(net, torch.ones(1, 4), ["1"])
    (['0', '2'], ['1'])

    Of a captured graph, which a model is that was loaded without its code, they are its operations. What runs more than once has no output that
    could be told by its name, and is passed over where no name was given.

    Raises:
        GraphError: a pattern fits nothing, or nothing is left.
    """
    known = output_names(model)
    if patterns is not None:
        return _named(known, patterns)
    try:
        blocks = layers_of(model)
    except GraphError:
        blocks = []
    runs: Counter[str] = Counter()
    with (
        watched(model, known, lambda name, _: runs.update([name])),
        in_eval(model),
        torch.no_grad(),
    ):
        call(model, moved(example_inputs, device_of(model)))
    if len(blocks) > 1 and all(runs[name] == 1 for name in blocks):
        first = embeddings_of(model)
        return [*([first] if first and runs[first] == 1 else []), *blocks]
    found = [name for name in known if runs[name] == 1 and _has_weights(model, name)]
    if not found:
        raise GraphError(f"{type(model).__name__} has no layer with weights that runs once; name the layers")
    return found


def _named(known: list[str], patterns: Iterable[str]) -> list[str]:
    """The modules of these patterns, in the model's order."""
    wanted = list(patterns)
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise GraphError(f"layerwise: no layer is named '{pattern}'{did_you_mean(pattern, known)}")
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in wanted)]


def _has_weights(model: nn.Module, name: str) -> bool:
    """Whether a module, or an operation of a captured graph, has a matrix or filters of its own."""
    if isinstance(model, fx.GraphModule):
        (node,) = (node for node in model.graph.nodes if node.name == name)
        given = [other for other in node.all_input_nodes if other.op == "get_attr"]
        tensors = [get_tensor(model, str(other.target)) for other in given]
        return any(isinstance(value, nn.Parameter) and value.ndim >= 2 for value in tensors)
    module = model.get_submodule(name)
    if isinstance(module, parametrize.ParametrizationList):
        return False
    own = module.parameters(recurse=False)
    return parametrize.is_parametrized(module) or any(value.ndim >= 2 for value in own)


def _counted(squares: Mapping[str, float], options: LayerwiseOptions) -> dict[str, float]:
    """The layers that can be compared relative to their size."""
    broken = [name for name, m in squares.items() if not math.isfinite(m)]
    if broken:
        raise DataError(
            f"layerwise: the teacher's '{broken[0]}' gives NaN or infinite values; train it again"
        )
    counted = {name: m for name, m in squares.items() if m > 0}
    if options.layers is not None and len(counted) < len(squares):
        name = next(name for name in squares if name not in counted)
        raise DataError(f"layerwise: the teacher's '{name}' gives nothing but zeros; leave it out")
    if not counted:
        raise DataError("layerwise: the teacher's layers give nothing but zeros; name others, or take kd")
    return counted


def mean_squares(teacher: nn.Module, inputs: Any, names: Iterable[str]) -> dict[str, float]:
    """The mean square of what each of these layers gives for a batch, padding left out.

    >>> net = nn.Sequential(nn.Identity(), nn.ReLU())
    >>> mean_squares(net, torch.tensor([[3.0, -1.0]]), ["0", "1"])
    {'0': 5.0, '1': 4.5}
    """
    wanted = list(names)
    inputs = moved(inputs, device_of(teacher))
    with in_eval(teacher), torch.no_grad(), capture(teacher, wanted) as seen:
        call(teacher, inputs)
    mask = mask_of(inputs)
    return {name: _apart(torch.zeros_like(seen[name]), seen[name], mask).item() for name in wanted}


def make_step(
    teacher: nn.Module,
    layers: Mapping[str, float],
    *,
    weight: float = 1.0,
    temperature: float = 4.0,
    alpha: float = 0.9,
    dropout: bool = False,
    loss: Loss | None = None,
) -> Step:
    """Make the step that the training loop runs. `layers` are modules that both have, with their mean squares.

    >>> import copy
    >>> from lianzhi.tasks import Batch
    >>> teacher = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> batch = Batch(torch.ones(2, 4), torch.tensor([0, 1]), torch.arange(2), 2)
    >>> step = make_step(teacher, mean_squares(teacher, batch.inputs, ["0"]), alpha=1.0)
    >>> step(copy.deepcopy(teacher), batch)["loss"].item()
    0.0

    `loss(outputs, labels)` is the task's own, the mean over samples; cross entropy by default (mean squared error for one output).
    The teacher runs in eval mode and without gradients, and keeps its modes. The student's dropout modules do nothing unless
    `dropout` is true: what they do to a layer is often more than what compression does.

    Raises:
        RecipeError: weight, temperature or alpha is out of range, or no layer is given; in the first step: the student
            recomputes layers that have dropout.
        GraphError, DataError: in the first step: a layer is not in both models, or not as wide, or other classes.
    """
    if not layers:
        raise RecipeError("layerwise: no layers are given; name one, with its mean square")
    options = LayerwiseOptions(weight=weight, temperature=temperature, alpha=alpha, dropout=dropout)
    rows = partial(divergences, temperature=options.temperature)
    held = teacher

    def step(model: nn.Module, batch: Batch) -> dict[str, Any]:
        nonlocal held
        if model is teacher:
            raise RecipeError("teacher and student are the same model; give a copy of it as the teacher")
        quiet = contextlib.nullcontext() if options.dropout else _without_dropout(model)
        with quiet, capture(model, layers) as own:
            outputs = call(model, batch.inputs)
        held = placed(held, device_of(model))
        with in_eval(held), torch.no_grad(), capture(held, layers) as theirs:
            wanted = logits_of(call(held, batch.inputs), "teacher")
        logits, mask = logits_of(outputs, "student"), mask_of(batch.inputs)
        require_same_shape(logits, wanted)
        apart = [_apart(own[name], theirs[name], mask) / m for name, m in layers.items()]
        parts = {"layers": (options.weight, torch.stack(apart).mean())}
        if options.alpha:
            parts["soft"] = (options.alpha, mean_by_sample(rows, logits, wanted, mask))
        if options.alpha < 1:
            parts["hard"] = (1 - options.alpha, on_labels(outputs, logits, wanted, batch.labels, mask, loss))
        return weighted(parts)

    return step


@contextlib.contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """Dropout of nothing; afterwards of what it was."""
    held = [
        (module, name, getattr(module, name))
        for module in model.modules()
        for kinds, name in DROPOUTS.items()
        if isinstance(module, kinds)
    ]
    again = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    if again and any(p for *_, p in held):
        raise RecipeError(
            "layerwise: the student computes parts of itself again in the backward pass (gradient checkpointing), where its "
            "dropout would be on; turn that off, or give dropout: true"
        )
    try:
        for module, name, _ in held:
            setattr(module, name, 0.0)
        yield
    finally:
        for module, name, p in held:
            setattr(module, name, p)


def _apart(own: Tensor, theirs: Tensor, mask: Tensor | None) -> Tensor:
    """The mean squared error; of tokens' states, of the tokens that count. Each sample's own mean is taken first."""
    if mask is not None and theirs.ndim == 3 and theirs.shape[:2] == mask.shape:
        return losses.hidden_mse(own, theirs, mask=mask, by_sample=True)
    require_same_shape(own, theirs)
    return functional.mse_loss(wide(own), wide(theirs))
