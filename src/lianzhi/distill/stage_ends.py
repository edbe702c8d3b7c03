"""Which features of a CNN are compared: the last output of each size of its maps, or those that are named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from lianzhi.distill.capture import capture
from lianzhi.distill.outputs import output_names, watched
from lianzhi.errors import GraphError
from lianzhi.graph import device_of, first_tensor, in_eval
from lianzhi.train.default_step import call
from lianzhi.train.validation import move

aten = torch.ops.aten
MOST = 4
MAPS = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.BatchNorm2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Upsample,
)
MAP_OPS = (
    aten.conv2d, aten.convolution, aten.conv_transpose2d, aten.batch_norm, aten.max_pool2d, aten.avg_pool2d,
    aten.adaptive_avg_pool2d, aten.upsample_nearest2d, aten.upsample_bilinear2d,
)  # fmt: skip
TOKENS, TOKEN_OPS = (nn.Linear, nn.LayerNorm), (aten.linear, aten.addmm, aten.layer_norm)


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

    Maps of 1x1, what pooling leaves, are no stage of their own unless there are no others. Four-dimensional outputs of
    a size that no convolution, pooling or BatchNorm2d gives are no maps: attention of heads, or channels that stand last. A
    module that runs more than once has no output that could be told by its name, and is passed over. A captured graph,
    which a model is that was loaded without its code, has operations in place of modules.

    Raises:
        GraphError: no module gives maps (batch, channels, height, width), or the model goes on in tokens after the last
            ones, as vision transformers do: the ends of its stages are no maps.
    """
    kinds = _kinds(model)
    runs: Counter[str] = Counter()
    found: list[Feature] = []

    def note(name: str, output: Any) -> None:
        runs[name] += 1
        tensor = first_tensor(output)
        if tensor is not None:
            found.append(Feature(name, tuple(tensor.shape)))

    with watched(model, output_names(model), note):
        _run(model, example_inputs)
    sizes = {feature.shape[2:] for feature in found if kinds.get(feature.name) == "maps" and _is_map(feature)}
    ends: dict[tuple[int, ...], Feature] = {}
    tokens: Feature | None = None
    for feature in found:
        if _is_map(feature) and (not sizes or feature.shape[2:] in sizes):
            tokens = None
            if runs[feature.name] == 1:
                ends.pop(feature.shape[2:], None)
                ends[feature.shape[2:]] = feature
        elif kinds.get(feature.name) == "tokens" and len(feature.shape) == 3 and feature.shape[1] > 1:
            tokens = tokens or feature
    if not ends:
        raise GraphError(
            f"no module of {type(model).__name__} gives maps (batch, channels, height, width); "
            f"name the layers to compare (student_layers, teacher_layers)"
        )
    if tokens is not None:
        raise GraphError(
            f"{type(model).__name__} goes on in tokens after its last maps ('{tokens.name}' gives {list(tokens.shape)}), so "
            f"that the ends of its stages are no maps; name the layers to compare (student_layers, teacher_layers)"
        )
    large = [feature for size, feature in ends.items() if size != (1, 1)]
    return (large or list(ends.values()))[-most:]


def _is_map(feature: Feature) -> bool:
    return len(feature.shape) == 4


def _kinds(model: nn.Module) -> Mapping[str, str]:
    """Which outputs are maps for sure, and which are of tokens where they have three dimensions."""
    if isinstance(model, fx.GraphModule):
        packets = {node.name: getattr(node.target, "overloadpacket", None) for node in model.graph.nodes}
        return {
            name: "maps" if packet in MAP_OPS else "tokens"
            for name, packet in packets.items()
            if packet in (*MAP_OPS, *TOKEN_OPS)
        }
    return {
        name: "maps" if isinstance(module, MAPS) else "tokens"
        for name, module in model.named_modules()
        if isinstance(module, (*MAPS, *TOKENS))
    }


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
