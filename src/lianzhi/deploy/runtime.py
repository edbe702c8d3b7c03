"""What every target offers, their registry, and `load`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from torch import nn

from lianzhi.deploy.session import Session
from lianzhi.errors import TargetError
from lianzhi.registry import Registry

registry = Registry("targets", "target")
MOST_THREADS = 1024


class Runtime(ABC):
    """A target: what runs a model, in which precisions, and how it is loaded."""

    name: str
    package: str  # the library, as it is imported
    extra: str  # the extra of Lianzhi that brings it; "" for what Lianzhi itself depends on
    takes_onnx: bool = True
    executes: bool = True  # on any machine, or is only built on most
    quantized_like: str = (
        "onnxruntime"  # whose placement and grids of quantizers it wants, of Lianzhi's own targets
    )
    stands_in: str = "onnxruntime"  # what executes its models on a machine where it does not

    def installed(self) -> bool:
        """Whether the library is there. Imports nothing."""
        return importlib.util.find_spec(self.package) is not None

    def version(self) -> str:
        """The library's version, or "" where it is not installed."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return ""

    def require(self) -> None:
        """Raise `TargetError` that says what to install, unless the library is there."""
        if not self.installed():
            raise TargetError(f"target '{self.name}' is not installed; run: {self.remedy}")

    @property
    def remedy(self) -> str:
        """The command that installs the library."""
        what = f"'lianzhi[{self.extra}]'" if self.extra else self.package
        return f"pip install {what}"

    @abstractmethod
    def offers(self, held: str = "f32") -> list[str]:
        """In which precisions this machine runs a file that holds this one; the first one is the default."""

    @abstractmethod
    def precisions(self, path: Any) -> list[str]:
        """In which precisions this machine runs this file; the first one is the default."""

    @abstractmethod
    def load(self, path: Any, *, precision: str | None = None, threads: int | None = None) -> Session:
        """Load a model to be called."""

    def export(self, source: Path, folder: Path, **options: Any) -> dict[str, Any]:
        """Write what the target loads into `folder`, from the ONNX file `source`; return what was done.

        ``files``: the names written; ``precision``: what it computes in; ``loaded``: whether the target was here to
        load it; ``notes``. A target with files of its own overrides this, and may take options.
        """
        if options:
            raise TargetError(f"target '{self.name}' has no option '{next(iter(options))}'; leave it out")
        from lianzhi.deploy.onnx import copy_onnx

        copy_onnx(source, folder / "model.onnx")
        written = sorted(item.name for item in folder.iterdir() if item.name.startswith("model.onnx"))
        precision = self.precisions(folder / "model.onnx")[0]
        if not self.installed():
            note = f"{self.name} is not installed here, so the file was not loaded: {self.remedy}"
            return {"files": written, "precision": precision, "loaded": False, "notes": [note]}
        self.load(folder / "model.onnx", precision=precision)
        return {"files": written, "precision": precision, "loaded": True, "notes": []}

    def check_module(self, model: nn.Module, example_inputs: Any) -> None:  # noqa: B027 (most have nothing to say)
        """Raise what `export_module` would raise for this module, before a run of hours; writes nothing."""

    def export_module(self, model: nn.Module, example_inputs: Any, folder: Path) -> dict[str, Any]:
        """Write what the target loads into `folder`, from a module; returns what `export` does. For targets that take no ONNX."""
        raise TargetError(f"target '{self.name}' is not written from a module; give an ONNX file")

    def chosen_precision(self, path: Any, precision: str | None) -> str:
        """The precision asked for, if it is offered; else the default."""
        offered = self.precisions(path)
        if precision is None:
            return offered[0]
        if precision not in offered:
            raise TargetError(
                f"{self.name} does not run {path_name(path)} in {precision} on this machine; "
                f"it offers {', '.join(offered)}"
            )
        return precision


def path_name(path: Any) -> str:
    """How a message calls a path or a module.

    >>> path_name(Path("out") / "model.onnx")
    'out/model.onnx'
    """
    return str(path) if isinstance(path, (str, os.PathLike)) else type(path).__name__


def available_threads(threads: int | None = None) -> int:
    """The number of threads asked for, else that of the cores this process may use."""
    if threads is not None:
        if not 1 <= threads <= MOST_THREADS:
            raise TargetError(f"threads is {threads}; it must be from 1 to {MOST_THREADS}")
        return threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def model_file(path: str | os.PathLike[str]) -> Path:
    """The ONNX file at `path`: the file itself, or the one of an artifact folder."""
    file = Path(path)
    if file.is_dir():
        file = file / "model.onnx"
    if not file.is_file():
        raise TargetError(f"{file}: no such ONNX file")
    return file


def runs_here(target: str) -> bool:
    """Whether a target's models are executed on this machine; others are built for another one.

    >>> runs_here("onnxruntime"), runs_here("tensorrt")
    (True, False)
    """
    executes: bool = registry.get(target).build.executes
    return executes


def stand_in(target: str) -> str:
    """The runtime that executes a target's file here, to measure what it computes.

    >>> stand_in("openvino"), stand_in("tensorrt"), stand_in("oneflow")
    ('openvino', 'onnxruntime', 'pytorch')
    """
    runtime: Runtime = registry.get(target).build
    return target if runtime.executes else runtime.stands_in


def takes_onnx(target: str) -> bool:
    """Whether a target's models are ONNX files, as ``auto`` may choose; others are made of the module itself.

    >>> takes_onnx("openvino"), takes_onnx("auto"), takes_onnx("oneflow")
    (True, True, False)
    """
    return target == "auto" or bool(registry.get(target).build.takes_onnx)


def quantized_like(target: str) -> str:
    """Which of Lianzhi's own targets has the quantizers that a target wants; one that nobody knows is given back.

    >>> quantized_like("tensorrt"), quantized_like("nowhere")
    ('tensorrt', 'nowhere')
    """
    if target not in registry.names():
        return target
    like: str = registry.get(target).build.quantized_like
    return like


def onnx_runtimes() -> list[str]:
    """The names of the targets that run ONNX files on this machine, installed or not.

    >>> onnx_runtimes()
    ['onnxruntime', 'openvino']
    """
    return [name for name in onnx_targets() if registry.get(name).build.executes]


def onnx_targets() -> list[str]:
    """The names of the targets that take ONNX files, also of those that only build here.

    >>> onnx_targets()
    ['onnxruntime', 'openvino', 'tensorrt']
    """
    return [name for name in registry.names() if registry.get(name).build.takes_onnx]


def load(
    path: Any,
    *,
    runtime: str,
    precision: str | None = None,
    threads: int | None = None,
    device: str | None = None,
    compiled: bool = False,
) -> Session:
    """Load a file to be called like a function.

    ```python
    session = deploy.load("out/model.onnx", runtime="openvino", threads=2)
    logits = session(images)
    ```

    `path` is an ONNX file or an artifact folder; for ``pytorch`` an artifact folder or a module.
    `precision` is one of the runtime's `precisions` for this file. `device` is where PyTorch computes; the other runtimes
    stay on the CPU (default: there, or where a given module is). `compiled` gives PyTorch's module to
    `torch.compile`, which takes its time at the first call. Raises `TargetError` that names the
    extra to install, or the precisions there are.
    """
    target: Runtime = registry.get(runtime).build
    target.require()
    if runtime == "pytorch":
        options: dict[str, Any] = {"device": device, "compiled": compiled}
        return target.load(path, precision=precision, threads=threads, **options)
    if compiled:
        raise TargetError(f"{runtime} compiles by itself; compiled is for the runtime pytorch")
    if device not in (None, "cpu"):
        raise TargetError(f"{runtime} computes on the CPU; device '{device}' is for the runtime pytorch")
    return target.load(path, precision=precision, threads=threads)
