"""Several processes: who am I, wait, and share values. Accelerate starts the group (gloo on CPUs)."""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch

from lianzhi.errors import LianzhiError

Result = TypeVar("Result")
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
