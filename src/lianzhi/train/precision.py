"""Precision and memory format: what this machine computes fastest in, and the switches around a step."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi.train.default_step import call
from lianzhi.train.small_maps import SmallMaps, works_on_small_maps

SIDE = 512  # of the matrices whose product is timed: 3 ms on one core
GAIN = 1.2  # bf16 has to be so much quicker: a step does more than products, and chance is not to decide


def has_bf16(device: torch.device) -> bool:
    """Whether the device has bf16 arithmetic (AMX or AVX-512 BF16 on a CPU), rather than emulating it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        return bool(has.get("amx_bf16") or has.get("avx512_bf16"))
    return False


def has_amx() -> bool:
    """Whether this processor multiplies bf16 in tiles."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def product_seconds(dtype: torch.dtype) -> float:
    """Best of five products of two square matrices on the CPU."""
    matrix = torch.full((SIDE, SIDE), 0.5, dtype=dtype)
    out = torch.empty_like(matrix)
    torch.mm(matrix, matrix, out=out)
    taken = []
    for _ in range(5):
        begin = time.perf_counter()
        torch.mm(matrix, matrix, out=out)
        taken.append(time.perf_counter() - begin)
    return min(taken)


@functools.cache
def gains(threads: int) -> bool:
    """Whether this processor multiplies bf16 quicker than float32, with so many threads of PyTorch's. Timed once.

    Not every one that has the instructions does: a Xeon with AVX-512 BF16 and no AMX was seen to be slower in them.
    """
    return product_seconds(torch.float32) >= GAIN * product_seconds(torch.bfloat16)


def precision(wanted: str, device: torch.device) -> str:
    """Resolve "auto": bf16 where the device has it and, on a CPU, is found to be quicker in it.

    >>> precision("bf16", torch.device("cpu"))
    'bf16'
    """
    if wanted != "auto":
        return wanted
    quicker = has_bf16(device) and (device.type != "cpu" or gains(torch.get_num_threads()))
    return "bf16" if quicker else "f32"


@contextmanager
def mixed(model: nn.Module, kind: str, device: torch.device) -> Iterator[Any]:
    """Give a function that makes the context of one step; outputs of `model` come out in float32."""
    if kind != "bf16":
        yield lambda: torch.autocast(device.type, enabled=False)
        return
    hook = model.register_forward_hook(lambda module, inputs, outputs: to_float(outputs))
    small = device.type == "cpu" and has_amx() and works_on_small_maps(model)

    def within() -> ExitStack:
        stack = ExitStack()
        stack.enter_context(torch.autocast(device.type, dtype=torch.bfloat16))
        if small:
            stack.enter_context(SmallMaps())
        return stack

    try:
        yield within
    finally:
        hook.remove()


def to_float(outputs: Any) -> Any:
    """Half-precision tensors in float32, in tuples and dicts as well."""
    if isinstance(outputs, Tensor):
        return outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs
    if isinstance(outputs, dict):
        return type(outputs)(**{key: to_float(value) for key, value in outputs.items()})
    if isinstance(outputs, (tuple, list)) and not hasattr(outputs, "_fields"):
        return type(outputs)(to_float(value) for value in outputs)
    return outputs


def channels_last_works(model: nn.Module, inputs: Any) -> bool:
    """Whether a model with 2-d convolutions runs in channels-last order (one that uses `view` may not).

    Seen on one core with AVX2: a training step of small ResNets takes a fifth to a quarter less time.
    """
    if not isinstance(inputs, Tensor) or inputs.ndim != 4:
        return False
    if not any(parameter.ndim == 4 for parameter in model.parameters()):
        return False
    training = model.training
    model.eval()
    model.to(memory_format=torch.channels_last)
    try:
        with torch.no_grad():
            call(model, inputs[:2].contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        model.to(memory_format=torch.contiguous_format)
        return False
    finally:
        model.train(training)
    return True
