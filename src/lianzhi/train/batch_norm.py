"""BatchNorm over all processes, for CPU tensors as well (torch.nn.SyncBatchNorm refuses those).

Each process computes count, mean and variance of its own samples; one exchange of these gives the
statistics of the whole batch (Chan's formula, no cancellation), whatever the counts are:

    N = Σ n_r        μ = Σ n_r μ_r / N        σ² = Σ n_r (σ_r² + (μ_r - μ)²) / N

and one exchange in the backward pass gives the two sums that the gradient needs:

    ∂x = γ/σ · (g - Σg/N - x̂ · Σ(g·x̂)/N)

It takes the place of `batch_norm` wherever it is called in training mode, in modules and in captured graphs
alike, by a `TorchFunctionMode`. Running statistics get the unbiased variance, as in one process.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_ATEN = (torch.batch_norm, torch.ops.aten.batch_norm.default, torch.ops.aten.batch_norm)
_ATEN_NAMES = (
    "input",
    "weight",
    "bias",
    "running_mean",
    "running_var",
    "training",
    "momentum",
    "eps",
    "cudnn_enabled",
)
_FUNCTIONAL_NAMES = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
_FUNCTIONAL_DEFAULTS = {"weight": None, "bias": None, "training": False, "momentum": 0.1, "eps": 1e-5}


class TooFewValues(ValueError):
    """A channel has one value on all processes together, which has no variance. All of them find that at once."""


class SharedBatchNorm(TorchFunctionMode):
    """While active, training-mode batch norms use the statistics of all processes.

    `counted` is false while this process runs a stand-in batch, whose samples belong to nobody: they are
    normalised like the others, and neither statistics nor gradients see them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counted = True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace the calls of batch_norm that train; pass everything else on."""
        kwargs = kwargs or {}
        if func is functional.batch_norm:
            given = {**_FUNCTIONAL_DEFAULTS, **dict(zip(_FUNCTIONAL_NAMES, args, strict=False)), **kwargs}
        elif func in _ATEN:
            given = {**dict(zip(_ATEN_NAMES, args, strict=False)), **kwargs}
        else:
            return func(*args, **kwargs)
        if not given["training"]:
            return func(*args, **kwargs)
        given.pop("cudnn_enabled", None)
        given.pop("training")
        return batch_norm(**given, counted=self.counted)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
    *,
    counted: bool = True,
) -> Tensor:
    """Batch norm in training mode over all processes. `input` is (batch, channels, …)."""
    mean, var, total = _statistics(input.detach(), counted)
    if total < 2:
        raise TooFewValues(f"batch norm needs more than 1 value per channel when training, got {total}")
    if running_mean is not None:
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    if running_var is not None:
        running_var.lerp_((var * (total / (total - 1))).to(running_var.dtype), momentum)
    return _Normalise.apply(input, weight, bias, mean, var, float(total), eps, counted)


def _statistics(input: Tensor, counted: bool) -> tuple[Tensor, Tensor, int]:
    """Mean, biased variance and number of values per channel, over all processes."""
    axes = [axis for axis in range(input.ndim) if axis != 1]
    number = input.numel() // input.shape[1] if counted else 0
    if number:
        var, mean = torch.var_mean(_wide(input), dim=axes, correction=0)
    else:
        mean = torch.zeros(input.shape[1], device=input.device, dtype=_wide(input[:0]).dtype)
        var = torch.zeros_like(mean)
    # float64 holds any count exactly
    mine = torch.cat([mean.double(), var.double(), mean.new_tensor([number], dtype=torch.float64)])
    parts = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, mine)
    means, variances, counts = torch.stack(parts).split([input.shape[1], input.shape[1], 1], dim=1)
    total = counts.sum()
    if total == 0:
        raise ValueError("batch norm got no value on any process")
    together = (counts * means).sum(0) / total
    spread = (counts * (variances + (means - together) ** 2)).sum(0) / total
    return together.to(mean.dtype), spread.to(mean.dtype), int(total)


class _Normalise(torch.autograd.Function):
    """Normalise by given statistics; differentiate through them, over all processes."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        total: float,
        eps: float,
        counted: bool,
    ) -> Tensor:
        ctx.save_for_backward(input, weight, mean, var)
        ctx.total, ctx.eps, ctx.counted = total, eps, counted
        return torch.batch_norm(input, weight, bias, mean, var, False, 0.0, eps, False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, mean, var = ctx.saved_tensors
        scale = (var + ctx.eps).rsqrt()
        shape = [1, -1, *[1] * (input.ndim - 2)]
        axes = [axis for axis in range(input.ndim) if axis != 1]
        gradient = _wide(gradients[0])
        centred = _wide(input) - mean.view(shape)
        of_bias = gradient.sum(axes)
        of_weight = (gradient * centred).sum(axes) * scale
        if not ctx.counted:
            of_bias, of_weight = torch.zeros_like(of_bias), torch.zeros_like(of_weight)
        sums = torch.cat([of_bias, of_weight])
        torch.distributed.all_reduce(sums)
        if ctx.counted:
            every_bias, every_weight = (sums / ctx.total).chunk(2)
            factor = scale if weight is None else scale * _wide(weight)
            gradient = gradient - every_bias.view(shape) - centred * (every_weight * scale).view(shape)
            of_input = (gradient * factor.view(shape)).to(input.dtype)
        else:
            of_input = torch.zeros_like(input)
        need = ctx.needs_input_grad
        return (
            of_input if need[0] else None,
            of_weight.to(weight.dtype) if weight is not None and need[1] else None,
            of_bias.to(weight.dtype if weight is not None else of_bias.dtype) if need[2] else None,
            *(None,) * 5,
        )


def _wide(tensor: Tensor) -> Tensor:
    """Half precision is too narrow for sums."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
