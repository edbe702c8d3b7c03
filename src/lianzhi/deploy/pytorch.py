"""PyTorch itself, eager: the module as it is, or the one of an artifact folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lianzhi.deploy.runtime import Runtime, available_threads, path_name, registry
from lianzhi.deploy.session import Session
from lianzhi.errors import TargetError
from lianzhi.graph import device_of, moved


@contextlib.contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Let PyTorch use this many threads in the block.

    >>> before = torch.get_num_threads()
    >>> with thread_count(1): torch.get_num_threads()
    1
    >>> torch.get_num_threads() == before
    True
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class PyTorchSession(Session):
    """A module in eval mode, without gradients; its own mode is restored after each call.

    On a `device` inputs are taken there, and outputs are brought back: a call ends when they are there.
    """

    def __init__(
        self, module: nn.Module, *, threads: int, device: str | None = None, compiled: bool = False
    ) -> None:
        name = "torch.compile" if compiled else "pytorch"
        super().__init__(runtime=name, precision="f32", threads=threads, inputs=(), outputs=())
        if device is None and device_of(module).type != "cpu":
            device = str(device_of(module))
        self.module = module if device is None else module.to(device)
        self.function: Any = torch.compile(self.module) if compiled else self.module
        self.device = device

    def run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Arrays by name, as for the other runtimes."""
        result = self({name: torch.from_numpy(value) for name, value in feeds.items()})
        values = result.values() if isinstance(result, dict) else result
        return [value.numpy() for value in ([result] if isinstance(result, torch.Tensor) else values)]

    def __call__(self, inputs: Any) -> Any:
        modes = [(module, module.training) for module in self.module.modules()]
        if any(training for _, training in modes):
            self.module.eval()
        try:
            with thread_count(self.threads), torch.inference_mode():
                if self.device is None:
                    return call(self.function, inputs)
                return moved(call(self.function, moved(inputs, self.device)), "cpu")
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
            raise TargetError(
                f"torch.compile fails on this model or machine ({reason}); leave compile out"
            ) from error
        finally:
            if self.module.training != modes[0][1]:
                self.module.train()
            for module, training in modes[1:]:
                module.training = training


def call(module: Any, inputs: Any) -> Any:
    """Call a module with example inputs: a tensor, a tuple, or a dict of keyword arguments."""
    if isinstance(inputs, dict):
        return module(**{name: _tensor(value) for name, value in inputs.items()})
    if isinstance(inputs, (tuple, list)):
        return module(*(_tensor(value) for value in inputs))
    return module(_tensor(inputs))


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


class PyTorch(Runtime):
    """Eager PyTorch on the CPU, in float32."""

    name = quantized_like = "pytorch"
    package = "torch"
    extra = ""
    takes_onnx = False

    def offers(self, held: str = "f32") -> list[str]:
        """Float32, whatever the model holds."""
        return ["f32"]

    def precisions(self, path: Any) -> list[str]:
        """Float32; a module with quantizers computes them in float32 too."""
        return ["f32"]

    def load(
        self,
        path: Any,
        *,
        precision: str | None = None,
        threads: int | None = None,
        device: str | None = None,
        compiled: bool = False,
    ) -> PyTorchSession:
        """Take a module, or load the one of an artifact folder; `compiled`: by `torch.compile`."""
        self.chosen_precision(path, precision)
        options: dict[str, Any] = {
            "threads": available_threads(threads),
            "device": device,
            "compiled": compiled,
        }
        if isinstance(path, nn.Module):
            return PyTorchSession(path, **options)
        if not os.path.isdir(path):
            raise TargetError(
                f"{path_name(path)}: pytorch loads a module or an artifact folder; "
                f"for an ONNX file choose {' or '.join(['onnxruntime', 'openvino'])}"
            )
        from lianzhi import artifact

        return PyTorchSession(artifact.load(path), **options)

    def export(self, source: Path, folder: Path, **options: Any) -> dict[str, Any]:
        """PyTorch loads an artifact folder, not an ONNX file."""
        raise TargetError(
            f"{source}: an ONNX file cannot be exported for pytorch, which loads artifact folders; "
            f"give the folder, or another target"
        )


registry.register("pytorch", "the module itself, eager, float32")(PyTorch())
