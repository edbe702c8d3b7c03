"""What a model computes inside: outputs of modules, and queries, keys, values and scores of self-attention.

Scores are recomputed from the outputs of the query and key projections. The model is asked for nothing (no
`output_attentions`), so that its fused attention kernels stay on, and only the layers looked at cost memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi.distill.outputs import output_names, watched
from lianzhi.distill.transformer import Attention, attention_of
from lianzhi.errors import GraphError, did_you_mean
from lianzhi.graph import first_tensor


class Captured:
    """What was seen: `seen[name]` is a module's output; `queries`, `keys`, `values`, `scores` take a layer's name."""

    def __init__(self, names: list[str], attention: dict[str, Attention]) -> None:
        self.names = names
        self.attention = attention
        self._outputs: dict[str, list[Tensor]] = {}

    def __getitem__(self, name: str) -> Tensor:
        """The first tensor that a module gave.

        Raises:
            GraphError: the module was not asked for, did not run, gave no tensor, or ran more than once.
        """
        found = self._outputs.get(name, [])
        if len(found) == 1:
            return found[0]
        if name not in self.names:
            raise GraphError(f"'{name}' is not captured{did_you_mean(name, self.names)}")
        if found:
            raise GraphError(
                f"'{name}' ran {len(found)} times: its outputs cannot be told apart; run the model once, and where its layers "
                f"share their weights (ALBERT's do) use the method kd, or an architecture without shared layers"
            )
        raise GraphError(
            f"'{name}' did not run, or gave no tensor; was the model called inside `with capture`?"
        )

    def queries(self, layer: str) -> Tensor:
        """Queries of a layer, (batch, heads, tokens, size)."""
        return self._by_heads(layer, "query")

    def keys(self, layer: str) -> Tensor:
        """Keys of a layer, (batch, heads, tokens, size)."""
        return self._by_heads(layer, "key")

    def values(self, layer: str) -> Tensor:
        """Values of a layer, (batch, heads, tokens, size)."""
        return self._by_heads(layer, "value")

    def scores(self, layer: str) -> Tensor:
        """Scores of a layer before mask and softmax, q·kᵀ times the layer's factor: (batch, heads, tokens, tokens).

        What a model adds to that outside of the layer is not in them; `lz.distill.require_plain_scores` says whether it does.
        """
        queries, keys = self.queries(layer), self.keys(layer)
        return torch.matmul(queries, keys.transpose(-2, -1)) * self.attention[layer].scale

    def _by_heads(self, layer: str, part: str) -> Tensor:
        if layer not in self.attention:
            raise GraphError(
                f"the attention of '{layer}' is not captured{did_you_mean(layer, self.attention)}"
                f"; name the layer in `capture(model, attention=[…])`"
            )
        found = self.attention[layer]
        flat = self[getattr(found, part)]
        return flat.unflatten(-1, (found.heads, -1)).transpose(-3, -2)


@contextlib.contextmanager
def capture(
    model: nn.Module, names: Iterable[str] = (), *, attention: Iterable[str] = ()
) -> Iterator[Captured]:
    """Note the outputs of these modules, and the attention of these layers, while the model runs once.

    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> with capture(net, ["0", "1"]) as seen:
    ...     outputs = net(torch.ones(5, 4))
    >>> seen["1"].shape, bool((seen["1"] == seen["0"].relu()).all())
    (torch.Size([5, 3]), True)

    Tensors carry gradients where the run does. Names are as in ``model.named_modules()``; of a model that is inside
    another, the inner one's; of a captured graph they are its operations'. Hooks are gone afterwards, after an error as
    well; the tensors live as long as `seen`.

    Raises:
        GraphError: the model has no such module, or a layer has no attention that can be read.
    """
    wanted = list(names)
    known = output_names(model)
    for name in wanted:
        if name not in known:
            raise GraphError(f"{type(model).__name__} has no module '{name}'{did_you_mean(name, known)}")
    layers = {layer: attention_of(model, layer) for layer in attention}
    wanted += [part for found in layers.values() for part in (found.query, found.key, found.value)]
    seen = Captured(wanted, layers)

    def note(name: str, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is not None:
            seen._outputs.setdefault(name, []).append(tensor)

    with watched(model, dict.fromkeys(wanted), note):
        yield seen
