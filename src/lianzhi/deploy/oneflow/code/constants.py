"""Constants of a captured graph as source: those that are short or follow a rule."""

from __future__ import annotations

import torch
from torch import Tensor

from lianzhi.deploy.oneflow.code.call import literal

MOST = 64  # values that stand in the source one by one


def constant(value: Tensor, device: str) -> str | None:
    """Source that makes the tensor again; None for one that is better kept among the weights.

    >>> constant(torch.arange(5).reshape(1, 5), "x.device")
    'flow.arange(0, 5, dtype=flow.int64, device=x.device).reshape([1, 5])'
    >>> constant(torch.zeros(2, 70), "x.device")
    'flow.full([2, 70], 0.0, dtype=flow.float32, device=x.device)'
    >>> constant(torch.tensor([1.5, 2.0]), "x.device"), constant(torch.rand(100), "x.device")
    ('flow.tensor([1.5, 2.0], dtype=flow.float32, device=x.device)', None)
    """
    kind = f"dtype={literal(value.dtype)}, device={device}"
    flat = value.detach().flatten()
    if value.numel() > 1 and bool((flat == flat[0]).all()):
        return f"flow.full({list(value.shape)}, {literal(flat[0].item())}, {kind})"
    if value.numel() > 2 and value.dtype in (torch.int32, torch.int64):
        first, step = int(flat[0]), int(flat[1] - flat[0])
        end = first + step * value.numel()
        if step > 0 and torch.equal(flat, torch.arange(first, end, step, dtype=value.dtype)):
            steps = "" if step == 1 else f", {step}"
            shaped = "" if value.dim() == 1 else f".reshape({list(value.shape)})"
            return f"flow.arange({first}, {end}{steps}, {kind}){shaped}"
    if 0 < value.numel() <= MOST:
        return f"flow.tensor({_listed(value.detach().tolist())}, {kind})"
    return None


def _listed(values: object) -> str:
    return f"[{', '.join(map(_listed, values))}]" if isinstance(values, list) else literal(values)
