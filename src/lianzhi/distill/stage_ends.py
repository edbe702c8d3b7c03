"""Which features of a CNN are compared: the last output of each size of its maps, or those that are named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lianzhi.distill.capture import capture
from lianzhi.distill.outputs import output_names, watched
from lianzhi.errors import GraphError
from lianzhi.graph import device_of, first_tensor, in_eval
from lianzhi.train.default_step import call
from lianzhi.train.validation import move

MOST = 4


@dataclass(frozen=True)
class Feature:
    """The output of a module, and its shape for the example inputs, the batch first."""

    name: str
    shape: tuple[int, ...]


def stage_ends(model: nn.Module, example_inputs: Any, *, most: int = MOST) -> list[Feature]:
    """The last output of each size of maps, the deepest `most` of them, in the order in which they are computed.

    >>> net = nn.Sequential(
    ...     nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(),
    ...     nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10))
    >>> [(end.name, end.shape) for end in stage_ends(net, torch.zeros(1, 3, 8, 8))]
    [('1', (1, 8, 8, 8)), ('4', (1, 12, 4, 4))]

    Maps of 1x1, what pooling leaves, are no stage of their own unless there are no others. A module that runs more
    than once has no output that could be told by its name, and is passed over. A captured graph, which a model is that
    was loaded without its code, has operations in place of modules.

    Raises:
        GraphError: no module gives maps (batch, channels, height, width).
    """
    runs: Counter[str] = Counter()
    found: list[Feature] = []

    def note(name: str, output: Any) -> None:
        runs[name] += 1
        tensor = first_tensor(output)
        if tensor is not None and tensor.ndim == 4:
            found.append(Feature(name, tuple(tensor.shape)))

    with watched(model, output_names(model), note):
        _run(model, example_inputs)
    ends: dict[tuple[int, ...], Feature] = {}
    for feature in found:
        if runs[feature.name] == 1:
            ends.pop(feature.shape[2:], None)
            ends[feature.shape[2:]] = feature
    if not ends:
        raise GraphError(
            f"no module of {type(model).__name__} gives maps (batch, channels, height, width); "
            f"name the layers to compare (student_layers, teacher_layers)"
        )
    large = [feature for size, feature in ends.items() if size != (1, 1)]
    return (large or list(ends.values()))[-most:]


def features_of(model: nn.Module, example_inputs: Any, names: Iterable[str]) -> list[Feature]:
    """The named modules' outputs.

    >>> features_of(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.zeros(1, 4), ["0"])
    [Feature(name='0', shape=(1, 3))]

    Raises:
        GraphError: there is no such module, or it does not run exactly once.
    """
    wanted = list(names)
    with capture(model, wanted) as seen:
        _run(model, example_inputs)
    return [Feature(name, tuple(seen[name].shape)) for name in wanted]


def _run(model: nn.Module, example_inputs: Any) -> None:
    with in_eval(model), torch.no_grad():
        call(model, move(example_inputs, device_of(model)))
