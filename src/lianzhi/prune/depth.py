"""Depth pruning: whole residual blocks become the identity, and lists of blocks become shorter.

A block is a module among like ones in a `ModuleList` or `Sequential` whose first tensor out has the shape of the
first tensor in. The proof: the pruned model computes what the original does with these blocks bypassed.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi.errors import ArtifactError, GraphError, RecipeError, did_you_mean
from lianzhi.graph import capture, macs
from lianzhi.graph.shorten import shortened
from lianzhi.prune import calibration as batches
from lianzhi.prune.blocks import Skip, bypassed_output, ends_of, find_blocks, output_kind, outputs
from lianzhi.prune.granularity import LAYERS
from lianzhi.prune.ignoring import Ignore, Ignored
from lianzhi.prune.plan_text import FORMAT, parse, texts
from lianzhi.prune.proof import difference
from lianzhi.prune.slicing import replace_parameters

Score = Callable[[nn.Module], float]


def _mean_of(measure: Callable[[Tensor], Tensor]) -> Score:
    def score(block: nn.Module) -> float:
        weights = [parameter.detach() for parameter in block.parameters() if parameter.dim() > 1]
        return float(sum(measure(weight).sum() for weight in weights)) / max(
            1, sum(w.numel() for w in weights)
        )

    return score


WEIGHTS: dict[str, Score] = {"l1": _mean_of(torch.abs), "l2": _mean_of(torch.square)}
CRITERIA = (*WEIGHTS, "influence", "position", "random")


@dataclass
class DepthPlan:
    """Which blocks go, by name. Made by `plan(granularity="layers")`."""

    model: nn.Module
    example_inputs: Any
    blocks: dict[str, float]
    removed: list[str]
    notes: list[str] = field(default_factory=list)
    result_kind: str = "not applied"
    result_reason: str = ""

    def apply(self, *, in_place: bool = False, optimizer: torch.optim.Optimizer | None = None) -> nn.Module:
        """Remove the blocks; return the shorter model (a copy, unless `in_place`).

        An `optimizer` is pointed at the parameters that are left, and keeps their state.
        """
        before = list(self.model.parameters())
        model = self.model if in_place else copy.deepcopy(self.model)
        after = dict(zip(before, list(model.parameters()), strict=True))
        result = self._shorter(model)
        if optimizer is not None:
            left = {id(parameter) for parameter in result.parameters()}
            replace_parameters(optimizer, {p: q if id(q) in left else None for p, q in after.items()})
        return result

    def _shorter(self, model: nn.Module) -> nn.Module:
        """Change a model, which is this plan's or a copy of it."""
        self.result_kind, self.result_reason = "plain", ""
        expected = bypassed_output(self.model, self.removed, self.example_inputs)
        if self._same(shortened(copy.deepcopy(self.model), self.removed), expected):
            return shortened(model, self.removed)
        self.result_reason = "the blocks became identities: the model's code counts its blocks"
        for name in self.removed:
            path, _, leaf = name.rpartition(".")
            kind = output_kind(model, name, self.example_inputs)
            model.get_submodule(path)._modules[leaf] = Skip(isinstance(kind, tuple))
        if not self._same(model, expected):
            raise GraphError(
                f"{type(self.model).__name__} needs more of {', '.join(self.removed)} than its hidden state; keep it"
            )
        return model

    def _same(self, model: nn.Module, expected: list[Tensor]) -> bool:
        try:
            return difference(expected, outputs(model, self.example_inputs)) < 1e-5
        except Exception:  # its forward counts its blocks
            return False

    def verify(self, *, seed: int = 0) -> float:
        """Largest |shorter − original with these blocks bypassed|, on noisy weights, relative to the output."""
        generator = torch.Generator().manual_seed(seed)
        noisy = copy.deepcopy(self.model)
        with torch.no_grad():
            for parameter in noisy.parameters():
                scale = (
                    parameter.numel() ** -0.5 if parameter.dim() < 2 else (2 / parameter[0].numel()) ** 0.5
                )
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator).to(parameter))
        expected = bypassed_output(noisy, self.removed, self.example_inputs)
        shorter = DepthPlan(noisy, self.example_inputs, self.blocks, self.removed).apply()
        return difference(expected, outputs(shorter, self.example_inputs))

    @property
    def unprunable(self) -> list[tuple[str, str]]:
        """Nothing: what is no block of a list is not looked at."""
        return []

    @property
    def layers(self) -> list[dict[str, Any]]:
        """Nothing: every layer that is left has the width that it had."""
        return []

    @property
    def units(self) -> dict[str, int]:
        """Nothing: no group of channels is touched."""
        return {}

    @property
    def share_kept(self) -> float:
        """Blocks that stay, of all."""
        return 1 - len(self.removed) / len(self.blocks)

    def count(self, quantity: str, keeps: dict[str, Tensor] | None = None) -> int:
        """`macs` (one sample), `parameters` or `bytes` that are left; with `keeps` of the whole model."""
        model = self.model if keeps is not None else self.apply()
        if quantity == "macs":
            return macs(capture(model, self.example_inputs))
        tensors = list(model.parameters())
        if quantity == "parameters":
            return sum(tensor.numel() for tensor in tensors)
        return sum(tensor.numel() * tensor.element_size() for tensor in [*tensors, *model.buffers()])

    def to_json(self) -> str:
        """The plan as JSON, to be read by `Plan.from_json`: every block with its score, and which go."""
        notes = {"notes": self.notes} if self.notes else {}
        body = {"format": FORMAT, "granularity": LAYERS, "blocks": self.blocks, "removed": self.removed}
        return json.dumps({**body, **notes})

    @staticmethod
    def from_json(text: str, model: nn.Module, example_inputs: Any) -> DepthPlan:
        """Read a plan for a model of the structure that it was made for. Raises `ArtifactError` if it does not fit."""
        data = parse(text)
        removed, scores = data.get("removed"), data.get("blocks")
        found = list(find_blocks(model, example_inputs))
        if not isinstance(scores, dict) or not scores or not set(scores) <= set(found):
            raise ArtifactError(
                f"pruning plan: its blocks are not the model's ({', '.join(found) or 'none'})"
            )
        values = {name: score for name, score in scores.items() if type(score) in (int, float)}
        if len(values) < len(scores):
            raise ArtifactError("pruning plan: the score of each of its 'blocks' is a number")
        gone = [str(name) for name in removed] if isinstance(removed, list) else None
        if (
            gone is None
            or len(set(gone)) < len(gone)
            or not set(gone) <= set(scores)
            or set(gone) == set(found)
        ):
            raise ArtifactError(
                "pruning plan: 'removed' names some of its blocks, each once, and leaves at least one"
            )
        return DepthPlan(model, example_inputs, values, gone, texts(data, "notes"))

    def table(self) -> str:
        """The plan as text."""
        width = max(map(len, self.blocks))
        rows = [
            f"{name:<{width}}  {score:>12.4g}  {'removed' if name in self.removed else 'kept'}"
            for name, score in self.blocks.items()
        ]
        return "\n".join([f"{'block':<{width}}  {'score':>12}", *rows, *self.notes])

    __str__ = table


def plan_layers(
    model: nn.Module,
    example_inputs: Any,
    *,
    ratio: float,
    criterion: str | Score = "influence",
    seed: int = 0,
    ignore: Ignore = (),
    calibration: Iterable[Any] | None = None,
) -> DepthPlan:
    """Decide which blocks go: `ratio` of all, those of the lowest score.

    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.linear = nn.Linear(4, 4)
    ...     def forward(self, x):
    ...         return x + self.linear(x)
    >>> net = nn.Sequential(nn.Linear(3, 4), nn.Sequential(*[Block() for _ in range(4)]), nn.Linear(4, 2))
    >>> decided = plan_layers(net, torch.randn(2, 3), ratio=0.5)
    >>> len(decided.apply()[1]), decided.verify() < 1e-5
    (2, True)

    ``influence`` is 1 − cos(block in, block out), the mean over the batches of `calibration`, or over the example
    inputs (2403.03853); ``l1`` and ``l2`` the mean size of the block's weights; ``position`` removes the last ones;
    or a function from a block to a number. A block stays if `ignore` names it or something in it.

    Raises `GraphError` for a model without such blocks, `RecipeError` for a criterion or a pattern that is not known.
    """
    check_criterion(criterion)
    ignored = Ignored(model, ignore)
    found = find_blocks(model, example_inputs)
    if not found:
        raise GraphError(
            f"{type(model).__name__} has no residual blocks of equal shape in a list of like modules"
        )
    found = {
        name: ends
        for name, ends in found.items()
        if not ignored.touches(f"{name}.{inside}" for inside, _ in _named(model.get_submodule(name)))
    }
    if not found:
        raise GraphError(f"{type(model).__name__}: all blocks that could go are ignored")
    if callable(criterion):
        scores = {name: float(criterion(model.get_submodule(name))) for name in found}
    elif criterion in WEIGHTS:
        scores = {name: WEIGHTS[criterion](model.get_submodule(name)) for name in found}
    elif criterion == "position":
        scores = {name: float(-index) for index, name in enumerate(found)}
    elif criterion == "random":
        draw = torch.rand(len(found), generator=torch.Generator().manual_seed(seed)).tolist()
        scores = dict(zip(found, draw, strict=True))
    else:
        scores = _influence(model, found, example_inputs, calibration)
    count = min(round(len(scores) * ratio), len(scores) - 1)
    removed = sorted(scores, key=lambda name: scores[name])[:count]
    notes = [] if removed else [f"ratio {ratio}: of {len(scores)} blocks that is none"]
    order = list(scores)
    return DepthPlan(model, example_inputs, scores, sorted(removed, key=order.index), notes)


def check_criterion(criterion: str | Score) -> None:
    """Raise `RecipeError` for a name that no criterion of blocks has."""
    if not callable(criterion) and criterion not in CRITERIA:
        raise RecipeError(
            f"granularity 'layers' has no criterion '{criterion}'{did_you_mean(criterion, CRITERIA)}"
        )


def _influence(
    model: nn.Module,
    found: dict[str, tuple[Tensor, Tensor]],
    example_inputs: Any,
    calibration: Iterable[Any] | None,
) -> dict[str, float]:
    """How far each block turns what goes through it, over all batches."""
    if calibration is None:
        return {name: _turn(*ends) for name, ends in found.items()}
    totals, count = dict.fromkeys(found, 0.0), 0
    for _, inputs, _ in batches.read(calibration, example_inputs):
        seen = ends_of(model, inputs, found)
        samples = batches.batch_size(inputs)
        totals = {name: total + samples * _turn(*seen[name]) for name, total in totals.items()}
        count += samples
    return {name: total / count for name, total in totals.items()}


def _turn(first: Tensor, last: Tensor) -> float:
    if first.dim() != 3:  # not tokens: one angle a sample
        first, last = first.flatten(1), last.flatten(1)
    return 1 - float(torch.cosine_similarity(first, last, -1).mean())


def _named(block: nn.Module) -> list[tuple[str, Any]]:
    return [*block.named_modules(), *block.named_parameters()]
