"""Whether a block attends by the plain product of its queries and keys: what `capture` takes as its scores.

Names and configs do not say all that a model adds to them: T5 and MPNet add a bias that another module makes, RoFormer turns
queries and keys, decoders and Longformer look at some of the tokens only. So the block is run, and what its attention gives is
compared with softmax(scores) · values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi.distill.capture import Captured, capture
from lianzhi.errors import GraphError
from lianzhi.graph import first_tensor
from lianzhi.train.default_step import call

NEAR = 1e-3  # of the largest value: kernels add in another order
ROUNDINGS = 4  # of a type of half precision, where they are more


@torch.no_grad()
def require_plain_scores(
    model: nn.Module, layers: Sequence[str], inputs: Any, mask: Tensor | None = None
) -> None:
    """Run the model, which is in eval mode, once; `mask` (batch, tokens) is true where a token counts.

    A block of whose attention nothing of that shape is seen is believed.

    Raises:
        GraphError: what a block's attention gives is something else.
    """
    given: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    handles = []
    with capture(model, attention=layers) as seen:
        for layer, kept in given.items():
            handles += _watched(model, seen.attention[layer].query, kept)
        try:
            call(model, inputs)
        finally:
            for handle in handles:
                handle.remove()
    for layer, kept in given.items():
        if not _plain(seen, layer, kept, mask):
            raise GraphError(
                f"'{layer}' does not attend by the plain product of its queries and keys (it has positions, a window or a "
                f"causal mask of its own): its scores are not known; use a method, or options, that need hidden states only"
            )


def _watched(model: nn.Module, query: str, kept: list[Tensor]) -> list[Any]:
    """Note what the module of the projections gives, and what goes into the linear modules that come after them."""
    module = model.get_submodule(query.rpartition(".")[0])

    def note(value: Any) -> None:
        tensor = first_tensor(value)
        if tensor is not None:
            kept.append(tensor)

    later = [child for child in module.children() if isinstance(child, nn.Linear)]
    return [
        module.register_forward_hook(lambda _, inputs, output: note(output)),
        *(child.register_forward_pre_hook(lambda _, inputs: note(inputs)) for child in later),
    ]


def _plain(seen: Captured, layer: str, kept: list[Tensor], mask: Tensor | None) -> bool:
    """Whether one of the tensors that were kept is what the scores give, or none is comparable."""
    scores = seen.scores(layer)
    if mask is not None and (scores.shape[0], scores.shape[-1]) != tuple(mask.shape):
        return False  # Longformer's samples are not on the first axis
    wanted = _context(seen, layer, mask)
    alike = [value for value in kept if value.shape == wanted.shape]
    return not alike or any(_near(value, wanted, mask) for value in alike)


def _context(seen: Captured, layer: str, mask: Tensor | None) -> Tensor:
    """softmax(scores) · values with the heads side by side, (batch, tokens, width)."""
    scores = seen.scores(layer)
    if mask is not None:
        scores = scores.masked_fill(~mask.bool()[:, None, None, :], torch.finfo(scores.dtype).min)
    return (scores.softmax(-1) @ seen.values(layer)).transpose(1, 2).flatten(2)


def _near(value: Tensor, wanted: Tensor, mask: Tensor | None) -> bool:
    """Equal at every token that counts, up to rounding."""
    near = max(NEAR, ROUNDINGS * torch.finfo(value.dtype).eps)
    value, wanted = value.float(), wanted.float()
    if mask is not None:
        value, wanted = value[mask.bool()], wanted[mask.bool()]
    return bool(((value - wanted).abs() <= near * wanted.abs().amax().clamp(min=1e-6)).all())
