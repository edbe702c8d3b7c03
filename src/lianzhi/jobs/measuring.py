"""Size, MACs and latency of a saved model on the runtimes that are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lianzhi import deploy, graph, measure
from lianzhi.errors import RecipeError
from lianzhi.jobs.artifacts import Saved
from lianzhi.jobs.evaluate import checked_device
from lianzhi.pipeline.rows import batch_of
from lianzhi.tasks.waiting import tracked


def measure_model(
    path: Path,
    *,
    runtime: str | None = None,
    precision: str | None = None,
    batches: list[int] | None = None,
    threads: int | None = None,
    repeats: int = 50,
    device: str | None = None,
    shape: tuple[int, ...] | None = None,
    compiled: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Time the model on `runtime`, or on every one installed that can take it (on a device but the CPU: PyTorch).

    `compiled` adds PyTorch's `torch.compile`. `shape` is that of one sample, for an ONNX file that leaves it open.
    """
    device = checked_device(device) or "cpu"
    saved = Saved(path)
    if shape is not None and saved.is_module:
        raise RecipeError(f"--input is for an .onnx file; {path} brings its own example")
    result: dict[str, Any] = {"model": str(path), "device": device, "latencies": []}
    module = saved.module() if saved.is_module else None
    if module is not None:
        inputs = saved.example_inputs()
        result["parameters"] = measure.parameters(module)
        result["macs"] = graph.macs(graph.capture(module, inputs))
    elif shape is None:
        inputs = deploy.onnx_example_inputs(saved.path)
    else:
        inputs = example_of(list(shape))
    everyone = ["pytorch", *(deploy.onnx_runtimes() if device == "cpu" else ())]
    todo = [
        (name, file, kind, batch, way)
        for name in ([runtime] if runtime else everyone)
        for file, kind in _offers(name, saved, module, precision, asked=runtime is not None)
        for way in ((False, True) if compiled and name == "pytorch" else (False,))
        for batch in batches or [1]
    ]
    if not todo:
        wanted = f" in {precision}" if precision else ""
        raise RecipeError(f"{path}: no runtime here can take it{wanted}")
    for name, file, kind, batch, way in tracked(todo, "measure", shown=progress):
        latency = measure.latency(
            file,
            batch_of(inputs, batch),
            runtime=name,
            precision=kind,
            threads=threads,
            repeats=repeats,
            device=device,
            compiled=way,
        )
        result["latencies"].append(latency.to_dict())
    file = path / "model.onnx" if path.is_dir() and (path / "model.onnx").is_file() else path
    result["bytes"] = measure.size(file)
    return result


def _offers(
    name: str, saved: Saved, module: Any, precision: str | None, *, asked: bool
) -> list[tuple[Any, str]]:
    """What a runtime loads, with each precision in which it is to be timed; nothing of one that was not asked for and cannot."""
    entry = deploy.registry.get(name).build
    if not asked and not (entry.installed() and _takes(name, saved)):
        return []
    file = module if name == "pytorch" and saved.packed else _file(name, saved)
    offered = [precision] if asked and precision is not None else entry.precisions(file)
    return [(file, kind) for kind in offered if precision in (None, kind)]


def _takes(runtime: str, saved: Saved) -> bool:
    """Whether there is something for the runtime to load."""
    if runtime == "pytorch":
        return saved.is_module
    return not saved.packed and (saved.path.is_file() or (saved.path / "model.onnx").is_file())


def _file(runtime: str, saved: Saved) -> Any:
    """What the runtime loads; an ONNX file that is missing is for the runtime to say."""
    if saved.path.is_dir() and runtime != "pytorch":
        return saved.path / "model.onnx"
    return saved.model_file(runtime)


def measure_text(result: dict[str, Any]) -> str:
    """The figures as a small table."""
    facts = [f"{result['bytes']:,} bytes"]
    facts += [
        f"{result[key]:,} {name}"
        for key, name in (("parameters", "parameters"), ("macs", "MACs"))
        if key in result
    ]
    lines = [f"{result['model']}: " + ", ".join(facts)]
    lines.append(
        f"{'runtime':<14}{'precision':<15}{'batch':>6}{'threads':>9}{'median ms':>12}{'p90 ms':>10}{'samples/s':>12}"
    )
    for entry in result["latencies"]:
        rate = entry["batch"] / entry["median_ms"] * 1000
        lines.append(
            f"{entry['runtime']:<14}{entry['precision']:<15}{entry['batch']:>6}{entry['threads']:>9}"
            f"{entry['median_ms']:>12.3f}{entry['p90_ms']:>10.3f}{rate:>12,.0f}"
        )
    return "\n".join(lines)


def example_of(shape: list[int]) -> torch.Tensor:
    """A batch of one random sample of this shape.

    >>> example_of([3, 8, 8]).shape
    torch.Size([1, 3, 8, 8])
    """
    return torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
