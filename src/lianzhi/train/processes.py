"""Several processes: who am I, wait, share, and sum gradients. Accelerate starts the group (gloo on CPUs).

Gradients are summed after the backward pass, in a few large messages, and each process has weighted its loss
by its share of the samples: the sum is the gradient of the whole batch, even when the last one is uneven. (A
wrapper such as DistributedDataParallel averages with equal weights, needs every parameter in every pass,
and hides the model's own attributes from a step.)
"""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lianzhi.errors import LianzhiError

Result = TypeVar("Result")
BUCKET = 8_000_000
LAST_TENSORS = 0.2  # seconds; milliseconds do, on a busy machine too
LONGEST_WAIT = timedelta(days=7)  # while the leader measures; when a process ends, `torchrun` ends the others


def process() -> tuple[int, int]:
    """The rank of this process and the number of processes.

    >>> process()
    (0, 1)
    """
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def start_processes(device: str = "cpu") -> tuple[int, int]:
    """Join the group that `torchrun` started, if it did; return (rank, number of processes).

    The group is left when the process ends.

    >>> start_processes()
    (0, 1)
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and process()[1] == 1:
        from accelerate import PartialState

        PartialState(cpu=torch.device(device).type == "cpu", timeout=LONGEST_WAIT)
        atexit.register(leave_processes)
    return process()


def leave_processes() -> None:
    """Leave the group, if there is one; waits for no other process.

    A thread of gloo that drops the tensors of the last sum needs the interpreter for it, and ends the process
    by SIGABRT when the interpreter is going away: it gets the time here.
    """
    if process()[1] > 1:
        torch.distributed.destroy_process_group()
        time.sleep(LAST_TENSORS)


def barrier() -> None:
    """Wait for all processes; nothing with one."""
    if process()[1] > 1:
        torch.distributed.barrier()


@contextlib.contextmanager
def leader_first() -> Iterator[None]:
    """Process 0 runs the block before the others, which then find what it put into the cache."""
    leads = process()[0] == 0
    if not leads:
        barrier()
    try:
        yield
    finally:
        if leads:
            barrier()


def from_leader(value: Any) -> Any:
    """Return process 0's value on every process."""
    if process()[1] == 1:
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def by_leader(function: Callable[[], Result]) -> Result:
    """Process 0 calls the function; every process returns its value, or raises its `LianzhiError`.

    >>> by_leader(lambda: 3)
    3
    """
    value: Any = None
    failure: LianzhiError | None = None
    if process()[0] == 0:
        try:
            value = function()
        except LianzhiError as error:
            failure = error
    value, failure = from_leader((value, failure))
    if failure is not None:
        raise failure
    found: Result = value
    return found


def gathered(value: Any) -> list[Any]:
    """Return every process's value, in the order of their ranks."""
    _, world = process()
    if world == 1:
        return [value]
    values: list[Any] = [None] * world
    torch.distributed.all_gather_object(values, value)
    return values


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
