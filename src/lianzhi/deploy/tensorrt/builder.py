"""Build an engine from an ONNX file by NVIDIA's own parser and builder.

The network is strongly typed: int8 is where QuantizeLinear and DequantizeLinear say so, and nowhere else. An engine
is built ahead of time for a named compute capability; TensorRT-RTX needs no GPU for that. Such an engine loads in
TensorRT-RTX alone.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lianzhi import files
from lianzhi.deploy.inspection import read_onnx
from lianzhi.deploy.tensorrt.library import Library, gpu_capability, open_library
from lianzhi.deploy.tensorrt.log import logger
from lianzhi.errors import TargetError

DEFAULT_CAPABILITY = "8.9"
RTX_ENGINE, ENGINE = "model.rtx.engine", "model.engine"
Profile = tuple[int, int, int]
BATCHES: Profile = (1, 8, 64)
LENGTHS: Profile = (1, 128, 512)
_LOCK = threading.Lock()


@dataclass(frozen=True)
class BuildReport:
    """What was built by what, for which processors, and how long it took. `executed` is always said."""

    engine: str
    library: str
    version: str
    compute_capability: str
    bytes: int
    onnx_bytes: int
    layers: int
    seconds: float
    executed: bool = False

    def __str__(self) -> str:
        how = "executed" if self.executed else "not executed"
        return (
            f"built by {self.library} {self.version} for SM {self.compute_capability}, {how}: {self.layers} layers, "
            f"{self.onnx_bytes / 1e6:.2f} MB of ONNX to {self.bytes / 1e6:.2f} MB of engine in {self.seconds:.1f} s"
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)


def engine_name(library: Library) -> str:
    """How the file is called: engines of TensorRT-RTX load there alone."""
    return RTX_ENGINE if library.rtx else ENGINE


def check(source: str | os.PathLike[str]) -> list[str]:
    """What NVIDIA's parser refuses in an ONNX file, a line an error; an empty list for a file that it takes.

    ```python
    from lianzhi.deploy import tensorrt
    print(tensorrt.check("model.onnx"))       # []
    ```
    """
    read_onnx(source, weights=False)
    library = open_library()
    with _LOCK:
        return _parse(library, source)[1]


def build(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    compute_capability: str | None = None,
    shapes: Mapping[str, Sequence[Sequence[int]]] | None = None,
) -> BuildReport:
    """Build an engine of an ONNX file and write it to `output`.

    ```python
    report = tensorrt.build("model.onnx", "model.rtx.engine", compute_capability="8.9")
    print(report)        # built by TensorRT-RTX 1.7.1.116 for SM 8.9, not executed: …
    ```

    The default is 8.9; classic TensorRT builds for the GPU that is here, and for no other. `shapes` gives for an input
    with free dimensions its least, usual and largest shape; by default batches of 1 to 64 and lengths of 1 to 512. Raises `TargetError` with the parser's own words for a file that it refuses, and
    for a compute capability that the library does not build for. Nothing is written then.
    """
    library = open_library()
    capability = _capability(library, compute_capability)
    start = time.perf_counter()
    plan, layers = build_plan(library, source, capability, shapes)
    target = files.write_bytes(output, plan)
    side = Path(f"{os.fspath(source)}.data")
    return BuildReport(
        engine=target.name,
        library=library.name,
        version=library.version,
        compute_capability=capability,
        bytes=len(plan),
        onnx_bytes=Path(source).stat().st_size + (side.stat().st_size if side.is_file() else 0),
        layers=layers,
        seconds=time.perf_counter() - start,
    )


def build_plan(
    library: Library,
    source: str | os.PathLike[str],
    capability: str,
    shapes: Mapping[str, Sequence[Sequence[int]]] | None = None,
) -> tuple[bytes, int]:
    """The engine of an ONNX file as bytes, and the number of its layers."""
    proto = read_onnx(source, weights=False)
    with _LOCK:
        return _built(library, source, proto, capability, shapes or {})


def capabilities() -> list[str]:
    """The compute capabilities for which the installed library builds.

    ```python
    tensorrt.capabilities()      # ['7.5', '8.0', '8.6', '8.9', '12.0', '12.1']
    ```
    """
    found = [name[2:] for name in dir(open_library().module.ComputeCapability) if name.startswith("SM")]
    return sorted((f"{name[:-1]}.{name[-1]}" for name in found), key=float)


def _capability(library: Library, wanted: str | None) -> str:
    """What the engine is for: as asked; of the classic library always the GPU that is here."""
    if library.rtx:
        return wanted or DEFAULT_CAPABILITY
    here = gpu_capability()
    if wanted not in (None, here):
        raise TargetError(f"{library} builds for the GPU that is here, SM {here}, and not for {wanted}")
    return here


def _built(
    library: Library, source: Any, proto: Any, capability: str, shapes: Mapping[str, Any]
) -> tuple[bytes, int]:
    network, errors, builder, log = _parse(library, source)
    if errors:
        raise TargetError(
            f"{source}: {library}'s parser refuses it: {errors[0]}; lianzhi.quantize.lint(path, 'tensorrt') says more"
        )
    config = builder.create_builder_config()
    if library.rtx:
        _for_capability(library, config, capability)
    _add_profile(builder, config, network, shapes)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        reason = next(iter(log.lines), "it gives no reason")
        raise TargetError(f"{source}: {library} cannot build an engine for SM {capability}: {reason}")
    return bytes(plan), int(network.num_layers)


def _for_capability(library: Library, config: Any, capability: str) -> None:
    name = f"SM{capability.replace('.', '')}"
    known = library.module.ComputeCapability
    if not hasattr(known, name):
        raise TargetError(
            f"{library} does not build for compute capability {capability}; it does for {', '.join(capabilities())}"
        )
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(known, name), 0)


def _add_profile(builder: Any, config: Any, network: Any, shapes: Mapping[str, Any]) -> None:
    """Say from which to which size the free dimensions go."""
    names = {network.get_input(index).name for index in range(network.num_inputs)}
    strange = [name for name in shapes if name not in names]
    if strange:
        raise TargetError(f"the model has no input '{strange[0]}'; it has {', '.join(sorted(names))}")
    profile, used = builder.create_optimization_profile(), False
    for index in range(network.num_inputs):
        item = network.get_input(index)
        given = shapes.get(item.name)
        if given is None and -1 not in tuple(item.shape):
            continue
        triple = [tuple(shape) for shape in given] if given else _default_shapes(item.name, tuple(item.shape))
        if len(triple) != 3 or any(len(shape) != len(item.shape) for shape in triple):
            raise TargetError(
                f"input '{item.name}' has {len(item.shape)} dimensions; give its least, usual and largest shape"
            )
        profile.set_shape(item.name, *triple)
        used = True
    if used:
        config.add_optimization_profile(profile)


def _default_shapes(name: str, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    free = [axis for axis, size in enumerate(shape) if size == -1]
    if any(axis > 1 for axis in free):
        raise TargetError(
            f"input '{name}' of shape {shape} leaves more than batch and length open; give shapes={{'{name}': "
            f"(least, usual, largest)}}"
        )
    sizes = {0: BATCHES, 1: LENGTHS}
    return [
        tuple(sizes[axis][place] if size == -1 else size for axis, size in enumerate(shape))
        for place in range(3)
    ]


def _parse(library: Library, source: str | os.PathLike[str]) -> tuple[Any, list[str], Any, Any]:
    """A strongly typed network, what the parser refuses, the builder and its log. The network ends with the builder."""
    trt = library.module
    log = logger(trt)
    builder = trt.Builder(log)
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, log)
    taken = parser.parse_from_file(os.fspath(source))
    errors = [_error(parser.get_error(index)) for index in range(parser.num_errors)]
    if not taken and not errors:
        errors = list(log.lines) or ["it gives no reason"]
    return network, errors, builder, log


def _error(error: Any) -> str:
    """A parser's error in a line: the operator, the node and the reason."""
    where = f"{error.node_operator()} '{error.node_name()}'" if error.node_name() else error.node_operator()
    return f"{where}: {' '.join(str(error.desc()).split())}" if where else " ".join(str(error.desc()).split())
