"""Depth pruning: whole residual blocks become the identity, and lists of blocks become shorter.

A block is a module among like ones in a `ModuleList` or `Sequential` whose first tensor out has the shape of the
first tensor in. The proof: the pruned model computes what the original does with these blocks bypassed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lianzhi.errors import GraphError, RecipeError, did_you_mean
from lianzhi.graph import split_inputs
from lianzhi.prune.config import has_config
from lianzhi.prune.proof import difference

COUNTS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers")
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

    def apply(self, *, in_place: bool = False) -> nn.Module:
        """Remove the blocks; return the shorter model (a copy, unless `in_place`)."""
        self.result_kind, self.result_reason = "plain", ""
        expected = _bypassed_output(self.model, self.removed, self.example_inputs)
        if self._same(_shortened(copy.deepcopy(self.model), self.removed), expected):
            return _shortened(self.model if in_place else copy.deepcopy(self.model), self.removed)
        self.result_reason = "the blocks became identities: the model's code counts its blocks"
        model = self.model if in_place else copy.deepcopy(self.model)
        for name in self.removed:
            path, _, leaf = name.rpartition(".")
            kind = _output_kind(model, name, self.example_inputs)
            model.get_submodule(path)._modules[leaf] = Skip(isinstance(kind, tuple))
        if not self._same(model, expected):
            raise GraphError(
                f"{type(self.model).__name__} needs more of {', '.join(self.removed)} than its hidden state; keep it"
            )
        return model

    def _same(self, model: nn.Module, expected: list[Tensor]) -> bool:
        try:
            return difference(expected, _outputs(model, self.example_inputs)) < 1e-5
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
        expected = _bypassed_output(noisy, self.removed, self.example_inputs)
        shorter = DepthPlan(noisy, self.example_inputs, self.blocks, self.removed).apply()
        return difference(expected, _outputs(shorter, self.example_inputs))

    @property
    def unprunable(self) -> list[tuple[str, str]]:
        """Nothing: what is no block of a list is not looked at."""
        return []

    def table(self) -> str:
        """The plan as text."""
        width = max(map(len, self.blocks))
        rows = [
            f"{name:<{width}}  {score:>12.4g}  {'removed' if name in self.removed else 'kept'}"
            for name, score in self.blocks.items()
        ]
        return "\n".join([f"{'block':<{width}}  {'score':>12}", *rows, *self.notes])

    __str__ = table


class Skip(nn.Module):
    """Gives back its first input, in a tuple where the block that it stands for gave one."""

    def __init__(self, as_tuple: bool = False) -> None:
        super().__init__()
        self.as_tuple = as_tuple

    def forward(self, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        return (value,) if self.as_tuple else value


def plan_layers(
    model: nn.Module,
    example_inputs: Any,
    *,
    ratio: float,
    criterion: str | Score = "influence",
    seed: int = 0,
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

    ``influence`` is 1 − cos(block in, block out) on the example inputs (2403.03853); ``l1`` and ``l2`` the mean
    size of the block's weights; ``position`` removes the last ones; or a function from a block to a number.
    """
    found = find_blocks(model, example_inputs)
    if not found:
        raise GraphError(
            f"{type(model).__name__} has no residual blocks of equal shape in a list of like modules"
        )
    if callable(criterion):
        scores = {name: float(criterion(model.get_submodule(name))) for name in found}
    elif criterion in WEIGHTS:
        scores = {name: WEIGHTS[criterion](model.get_submodule(name)) for name in found}
    elif criterion == "position":
        scores = {name: float(-index) for index, name in enumerate(found)}
    elif criterion == "random":
        draw = torch.rand(len(found), generator=torch.Generator().manual_seed(seed)).tolist()
        scores = dict(zip(found, draw, strict=True))
    elif criterion == "influence":
        scores = {name: 1 - float(torch.cosine_similarity(a, b, -1).mean()) for name, (a, b) in found.items()}
    else:
        raise RecipeError(
            f"granularity 'layers' has no criterion '{criterion}'{did_you_mean(criterion, CRITERIA)}"
        )
    count = min(round(len(scores) * ratio), len(scores) - 1)
    removed = sorted(scores, key=lambda name: scores[name])[:count]
    order = list(scores)
    return DepthPlan(model, example_inputs, scores, sorted(removed, key=order.index))


def find_blocks(model: nn.Module, example_inputs: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Blocks that could be the identity, with what went in and came out; the outermost where they are nested."""
    candidates = [
        (f"{path}.{index}" if path else index, child)
        for path, parent in model.named_modules()
        if isinstance(parent, (nn.ModuleList, nn.Sequential))
        for index, child in parent.named_children()
        if sum(type(other) is type(child) for other in parent.children()) > 1
        and next(child.parameters(), None) is not None
    ]
    seen: dict[str, list[tuple[Tensor, Tensor, Any, Any]]] = {}
    hooks = []
    for name, module in candidates:

        def record(_: nn.Module, args: Any, kwargs: Any, out: Any, name: str = name) -> None:
            first, last = _first((args, kwargs)), _first(out)
            if first is not None and last is not None:
                seen.setdefault(name, []).append((first, last, args, kwargs))

        hooks.append(module.register_forward_hook(record, with_kwargs=True))
    try:
        _outputs(model, example_inputs)
    finally:
        for hook in hooks:
            hook.remove()
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, _ in candidates:
        runs = seen.get(name, [])
        if len(runs) != 1 or runs[0][0].shape != runs[0][1].shape or runs[0][0].dtype != runs[0][1].dtype:
            continue
        first, last, args, kwargs = runs[0]
        inner = any(name.startswith(f"{outer}.") for outer in found)
        if not inner and _is_residual(model.get_submodule(name), first, args, kwargs):
            found[name] = (first, last)
    return found


def _is_residual(block: nn.Module, first: Tensor, args: Any, kwargs: Any) -> bool:
    """Whether the input reaches the output by itself: it does so still when all matrices are zero."""
    silent = copy.deepcopy(block).eval()
    with torch.no_grad():
        for parameter in silent.parameters():
            if parameter.dim() > 1:
                parameter.zero_()
        other = first + torch.randn(first.shape, generator=torch.Generator().manual_seed(0)).to(first)
        swapped = pytree.tree_map(lambda leaf: other if leaf is first else leaf, (args, kwargs))
        one, two = (_first(silent(*a, **k)) for a, k in ((args, kwargs), swapped))
    return one is not None and two is not None and not torch.allclose(one, two)


def _first(value: Any) -> Tensor | None:
    return next((leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)), None)


def _outputs(model: nn.Module, example_inputs: Any) -> list[Tensor]:
    args, kwargs = split_inputs(example_inputs)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return [leaf for leaf in pytree.tree_leaves(model(*args, **kwargs)) if isinstance(leaf, Tensor)]
    finally:
        for module, mode in modes:
            module.training = mode


def _output_kind(model: nn.Module, name: str, example_inputs: Any) -> Any:
    kinds: list[Any] = []
    hook = model.get_submodule(name).register_forward_hook(lambda module, args, out: kinds.append(out))
    try:
        _outputs(model, example_inputs)
    finally:
        hook.remove()
    return kinds[0]


def _bypassed_output(model: nn.Module, removed: Sequence[str], example_inputs: Any) -> list[Tensor]:
    """What the model computes when these blocks hand on what they are given."""

    def bypass(_: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
        value = _first((args, kwargs))
        return (value, *out[1:]) if isinstance(out, tuple) else value

    hooks = [model.get_submodule(name).register_forward_hook(bypass, with_kwargs=True) for name in removed]
    try:
        return _outputs(model, example_inputs)
    finally:
        for hook in hooks:
            hook.remove()


def _shortened(model: nn.Module, removed: Sequence[str]) -> nn.Module:
    """Take the blocks out of their lists, and sync what counts them: the config, the index of each block."""
    for path in dict.fromkeys(name.rpartition(".")[0] for name in removed):
        parent = model.get_submodule(path)
        gone = {name.rpartition(".")[2] for name in removed if name.rpartition(".")[0] == path}
        before = len(parent._modules)
        positions = [index for index, key in enumerate(parent._modules) if key not in gone]
        kept = [module for key, module in parent._modules.items() if key not in gone]
        parent._modules.clear()
        for index, module in enumerate(kept):
            parent._modules[str(index)] = module
            for child in module.modules():  # type: ignore[union-attr]
                if type(vars(child).get("layer_idx")) is int:
                    child.layer_idx = index  # type: ignore[assignment]
        owners = {
            id(vars(module)["config"]): module.config
            for module in model.modules()
            if "config" in vars(module)
        }
        if has_config(model):
            owners[id(model.config)] = model.config
        for config in owners.values():
            _shorten_config(config, before, positions)
    return model


def _shorten_config(config: Any, before: int, positions: list[int]) -> None:
    for name, value in config.to_dict().items():
        if name in COUNTS and value == before:
            setattr(config, name, len(positions))
        elif name == "layer_types" and isinstance(value, list) and len(value) == before:
            setattr(config, name, [value[index] for index in positions])
