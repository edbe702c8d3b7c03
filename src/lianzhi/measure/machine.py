"""The machine and the versions: what every measured number depends on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from lianzhi._version import __version__
from lianzhi.deploy.runtime import available_threads

_LIBRARIES = (
    "torch", "torchvision", "transformers", "onnx", "onnxscript", "onnxruntime", "openvino", "numpy",
)  # fmt: skip


@dataclass(frozen=True)
class Cpu:
    """The processor, and which of its instructions matter here.

    `has_vnni`: integer dot products that do not saturate (x86); `has_amx`: int8 and bf16 tiles;
    `has_bf16`: bf16 arithmetic. `saturates`: on x86 without VNNI a product of uint8 and int8 may overflow
    16 bits inside an instruction, so weights need 7 bits.
    """

    name: str
    architecture: str
    cores: int
    has_vnni: bool
    has_amx: bool
    has_bf16: bool

    @property
    def saturates(self) -> bool:
        """Whether int8 weights need 7 bits here."""
        return self.architecture in ("x86_64", "amd64", "i386", "i686") and not (
            self.has_vnni or self.has_amx
        )


@lru_cache(maxsize=1)
def cpu() -> Cpu:
    """The processor of this machine."""
    text = _cpuinfo()
    flags = _flags(text)
    return Cpu(
        name=_name(text),
        architecture=platform.machine().lower(),
        cores=available_threads(),
        has_vnni=bool(flags & {"avx512_vnni", "avx_vnni", "avx_vnni_int8"}) or torch.cpu._is_vnni_supported(),
        has_amx="amx_int8" in flags or torch.cpu._is_amx_tile_supported(),
        has_bf16=bool(flags & {"avx512_bf16", "amx_bf16", "bf16"}) or torch.cpu._is_avx512_bf16_supported(),
    )


def _cpuinfo() -> str:
    file = Path("/proc/cpuinfo")
    return file.read_text(errors="replace") if file.is_file() else ""


def _flags(text: str) -> set[str]:
    """The instruction flags of the first core.

    >>> sorted(_flags("processor: 0\\nflags : fpu avx2\\n"))
    ['avx2', 'fpu']
    """
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            return set(value.split())
    return set()


def _name(text: str) -> str:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def environment() -> dict[str, Any]:
    """The machine and the versions as JSON-ready values; a library that is not installed is left out.

    >>> sorted(environment())[:4]
    ['architecture', 'cores', 'cpu', 'has_amx']
    """
    facts = asdict(cpu())
    facts["cpu"] = facts.pop("name")
    versions = {name: version for name in _LIBRARIES if (version := _version(name))}
    return {
        **facts,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS", ""),
        "os": platform.platform(),
        "python": platform.python_version(),
        "lianzhi": __version__,
        **versions,
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
