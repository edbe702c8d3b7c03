"""NVIDIA's TensorRT, imported when it is needed: the classic library, else TensorRT-RTX, which builds without a GPU."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lianzhi.errors import TargetError

CLASSIC, RTX = "tensorrt", "tensorrt_rtx_bindings"
RTX_DISTRIBUTION = "tensorrt_rtx_cu12_bindings"
INSTALL = "pip install 'lianzhi[tensorrt]'"


@dataclass(frozen=True)
class Library:
    """The imported module, what it is called in a report, and whether it is TensorRT-RTX."""

    module: Any
    name: str
    version: str
    rtx: bool

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@functools.cache
def open_library() -> Library:
    """Import TensorRT: classic where there is a GPU that it can build for, else TensorRT-RTX.

    Raises `TargetError` that names the extra, or what keeps the library from being loaded.
    """
    if importlib.util.find_spec(CLASSIC) is not None and has_gpu():
        module = _imported(CLASSIC)
        return Library(module, "TensorRT", str(module.__version__), rtx=False)
    if importlib.util.find_spec(RTX) is None:
        raise TargetError(f"target 'tensorrt' is not installed; run: {INSTALL}")
    _load_cuda_runtime()
    module = _imported(RTX)
    return Library(module, "TensorRT-RTX", str(module.__version__), rtx=True)


def has_gpu() -> bool:
    """Whether PyTorch sees an NVIDIA GPU."""
    import torch

    return torch.cuda.is_available() and torch.version.cuda is not None


def gpu_capability() -> str:
    """The compute capability of the GPU that is here, as "8.9"."""
    import torch

    return ".".join(str(part) for part in torch.cuda.get_device_capability())


def _load_cuda_runtime() -> None:
    """TensorRT looks for the symbols of libcudart among those that the process has."""
    try:
        files = importlib.metadata.files("nvidia-cuda-runtime-cu12") or []
    except importlib.metadata.PackageNotFoundError:
        raise TargetError(
            f"target 'tensorrt' needs the CUDA runtime (nvidia-cuda-runtime-cu12); run: {INSTALL}"
        ) from None
    found = [Path(str(item.locate())) for item in files if item.name.startswith("libcudart.so")]
    with contextlib.suppress(OSError):  # the import below says what is missing
        for path in found:
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TargetError(f"TensorRT is installed and cannot be loaded ({reason}); run: {INSTALL}") from error
