"""One model in several processes: the same weights in all, and gradients that are summed.

Gradients are summed after the backward pass, in a few large messages, and each process has weighted its loss
by its share of the samples: the sum is the gradient of the whole batch, even when the last one is uneven. (A
wrapper such as DistributedDataParallel averages with equal weights, needs every parameter in every pass,
and hides the model's own attributes from a step.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from lianzhi.processes import process

BUCKET = 8_000_000


def share_model(model: nn.Module) -> None:
    """Give every process the weights and buffers of process 0."""
    if process()[1] == 1:
        return
    for tensor in [*model.parameters(), *model.buffers()]:
        whole = tensor.detach().contiguous()
        torch.distributed.broadcast(whole, src=0)
        tensor.detach().copy_(whole)


def sum_gradients(parameters: Sequence[nn.Parameter], values: Tensor) -> Tensor:
    """Sum gradients over the processes, in place, and return the sum of `values` (a vector of float64).

    A parameter that no process used keeps no gradient.
    """
    if process()[1] == 1:
        return values
    used = torch.tensor([float(parameter.grad is not None) for parameter in parameters], dtype=values.dtype)
    message = torch.cat([values, used.to(values.device)])
    torch.distributed.all_reduce(message)
    anywhere = message[len(values) :].tolist()
    active = [parameter for parameter, count in zip(parameters, anywhere, strict=True) if count]
    for parameter in active:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets([parameter.grad for parameter in active if parameter.grad is not None]):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        torch.distributed.all_reduce(flat)
        for gradient, part in zip(bucket, flat.split([item.numel() for item in bucket]), strict=True):
            gradient.copy_(part.view(gradient.shape))
    return message[: len(values)]


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Group gradients of one type into messages of about `BUCKET` numbers."""
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and (size + gradient.numel() > BUCKET or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.numel()
    if bucket:
        yield bucket
