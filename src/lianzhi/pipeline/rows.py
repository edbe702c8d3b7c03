"""The row of the report that is measured after each step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from lianzhi import deploy, files, graph, measure, quantize
from lianzhi.errors import DataError, GraphError, TargetError
from lianzhi.pipeline.state import Run, State
from lianzhi.quantize import QuantizedModel
from lianzhi.tasks import Task

Latencies = list[dict[str, Any]]
FLOAT = "float.onnx"  # the model of a step, in its folder


def batch_of(inputs: Any, count: int) -> Any:
    """Repeat example inputs of one sample to a batch of `count`.

    >>> import torch
    >>> batch_of(torch.zeros(1, 3), 4).shape
    torch.Size([4, 3])
    """
    if isinstance(inputs, dict):
        return {key: batch_of(value, count) for key, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return tuple(batch_of(value, count) for value in inputs)
    return inputs[:1].repeat(count, *[1] * (inputs.dim() - 1))


def time_file(run: Run, path: Path, runtime: str, precision: str) -> Latencies:
    """Latency of one file in one runtime and precision, at every batch size of the recipe."""
    options = run.recipe.measure
    return [
        measure.latency(
            path,
            batch_of(run.task.example_inputs, batch),
            runtime=runtime,
            precision=precision,
            threads=options.threads,
            repeats=options.repeats,
        ).to_dict()
        for batch in options.batches
    ]


def time_module(run: Run, model: nn.Module) -> Latencies:
    """Latency of the module in eager PyTorch."""
    options = run.recipe.measure
    return [
        measure.latency(
            model,
            batch_of(run.task.example_inputs, batch),
            runtime="pytorch",
            threads=options.threads,
            repeats=options.repeats,
        ).to_dict()
        for batch in options.batches
    ]


@dataclass(frozen=True)
class Measured:
    """A float model: bytes of its file, MACs of one sample, those of each layer that has any, and latencies."""

    size: int
    macs: int
    layers: dict[str, int]
    latencies: Latencies


@dataclass
class FloatMeter:
    """Measures float models, and remembers the latencies of a structure that it has seen.

    `notes` say which runtimes could not take the model: only the one that it is made for has to.
    """

    seen: dict[str, Measured] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __call__(self, run: Run, model: nn.Module, path: Path, *, keep: bool = False) -> Measured:
        """Measure the model as a float ONNX file, and in eager PyTorch.

        The file is removed unless it is to be kept, for `again`. For a target without ONNX the bytes are those of its weights, and a model that ONNX cannot say is none the worse.
        """
        key = structure(model)
        if key not in self.seen:
            latencies = time_module(run, model)
            try:
                deploy.export_onnx(model, run.task.example_inputs, path)
            except GraphError as error:
                if deploy.takes_onnx(run.recipe.target):
                    raise
                self.notes.append(f"timed in PyTorch alone: {error}")
            else:
                latencies += self._time_runtimes(run, path)
            captured = graph.capture(model, run.task.example_inputs)
            from_file = deploy.takes_onnx(run.recipe.target)
            size = measure.size(path) if from_file else _weights_size(model, path)
            self.seen[key] = Measured(size, graph.macs(captured), layer_macs(captured), latencies)
            if not keep:
                path.unlink(missing_ok=True)
        return self.seen[key]

    def again(self, run: Run, model: nn.Module, path: Path) -> Latencies:
        """Latencies of a model that was measured before, whose file may still be there."""
        if path.is_file():
            return time_module(run, model) + self._time_runtimes(run, path)
        return FloatMeter()(run, model, path).latencies

    def _time_runtimes(self, run: Run, path: Path) -> Latencies:
        """Latencies in every runtime that is installed; one that is not the target may fail."""
        latencies: Latencies = []
        for name in deploy.onnx_runtimes():
            runtime = deploy.registry.get(name).build
            if not runtime.installed():
                continue
            try:
                for precision in runtime.precisions(path):
                    latencies += time_file(run, path, name, precision)
            except (TargetError, DataError) as error:
                if name == run.recipe.target:
                    raise
                self.notes.append(f"{name} is left out of the float latencies: {error}")
        return latencies


def layer_macs(captured: graph.Graph) -> dict[str, int]:
    """MACs of one sample of each layer that has any, in the order of the graph; those of a layer that is used twice are added.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 4))
    >>> layer_macs(graph.capture(model, torch.zeros(1, 3)))
    {'0': 6, '2': 8}
    """
    found: dict[str, int] = {}
    for layer in graph.layers(captured):
        if layer["macs"]:
            found[layer["name"]] = found.get(layer["name"], 0) + layer["macs"]
    return found


def _weights_size(model: nn.Module, path: Path) -> int:
    """Bytes of the model's tensors as a file, tied ones once."""
    unique = {id(tensor): (name, tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    file = files.write_tensors(path.with_suffix(".safetensors"), dict(unique.values()))
    size = measure.size(file)
    file.unlink()
    return size


def of_target(latencies: Latencies, target: str) -> Latencies:
    """The latencies in the runtime that the model is made for; all of them for ``auto``, and for a file that does not run here.

    >>> of_target([{"runtime": "pytorch"}, {"runtime": "openvino"}], "openvino")
    [{'runtime': 'openvino'}]
    >>> of_target([{"runtime": "pytorch"}, {"runtime": "openvino"}], "oneflow")
    [{'runtime': 'pytorch'}]
    """
    everywhere = target == "auto" or (deploy.takes_onnx(target) and not deploy.runs_here(target))
    return [entry for entry in latencies if everywhere or entry["runtime"] == deploy.stand_in(target)]


def retimed(
    rows: list[dict[str, Any]], again: Latencies, batch: int, target: str = "auto"
) -> list[dict[str, Any]]:
    """Rows with the original's structure take the shorter of two times, of the run's beginning and of its end.

    A run may take hours, and the machine may have been slow when it began: the original is timed again beside the
    result, so that no speed-up is one of the machine.
    """
    before = rows[0]["latencies"]
    where = ("runtime", "precision", "batch", "threads")
    late = {tuple(entry[key] for key in where): entry for entry in again}
    best = [
        min(entry, late.get(tuple(entry[key] for key in where), entry), key=lambda item: item["median_ms"])
        for entry in before
    ]

    def updated(row: dict[str, Any]) -> dict[str, Any]:
        if row["latencies"] != before:
            return row
        ranked = of_target(best, "pytorch" if row is rows[0] else target)
        return {**row, "latencies": best, **deployed_keys(fastest(ranked, batch))}

    return [updated(row) for row in rows]


def structure(model: nn.Module) -> str:
    """What latency depends on: the class and every tensor's shape, not the values.

    >>> structure(nn.Linear(2, 3)) == structure(nn.Linear(2, 3))
    True
    """
    shapes = [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
    return f"{type(model).__qualname__}{shapes}"


def accuracy(run: Run, predict: Any, *, alone: bool = False) -> tuple[measure.Evaluation, float | None]:
    """The reported metric, and the one on the validation cut, by which decisions are made.

    Those of splits that are reported too stand among the metrics, under the split's name. `alone`: this process
    evaluates by itself, while others wait.
    """
    shown = run.progress and run.leads
    reported = measure.evaluate(predict, run.task, progress=shown, alone=alone)
    _require_share(reported, run.task)
    for name in run.task.also:
        other = measure.evaluate(predict, run.task, split=name, progress=shown, alone=alone)
        more = {f"{name}_{metric}": value for metric, value in other.metrics.items()}
        reported = replace(reported, metrics=reported.metrics | more)
    if reported.split == "validation" or not run.task.has("validation"):
        return reported, reported.value if reported.split == "validation" else None
    chosen = measure.evaluate(predict, run.task, split="validation", progress=shown, alone=alone)
    return reported, chosen.value


def _require_share(found: measure.Evaluation, task: Task) -> None:
    """Refuse a metric that a report cannot show, when it is first measured and not when all is done."""
    if math.isfinite(found.value) and not -1 <= found.value <= 1:
        raise DataError(
            f"metric '{found.metric}' of task '{task.name}' is {found.value:g} on {found.split}; a metric is a share "
            f"from -1 to 1, and more is better: give 93.4 % as 0.934, an error e as -e / (1 + e), and bound what has "
            f"no bound, as in max(-1, r2)"
        )


def make_row(
    step: str,
    *,
    reported: measure.Evaluation,
    validation: float | None,
    parameters: int,
    nonzero: int | None,
    size: int,
    macs: int,
    seconds: float,
    latencies: Latencies,
    deployed: dict[str, Any],
    details: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One row of ``report.json``; `nonzero` is of models whose weights were pruned one by one."""
    return {
        "step": step,
        "metric": reported.metric,
        "value": reported.value,
        "metrics": reported.metrics,
        "split": reported.split,
        "samples": reported.samples,
        "validation": validation,
        "parameters": parameters,
        "nonzero": nonzero,
        "bytes": size,
        "macs": macs,
        "seconds": seconds,
        "latencies": latencies,
        **deployed_keys(deployed),
        "details": details or {},
    }


def nonzero(state: State, quantized: QuantizedModel | None = None) -> int | None:
    """How many parameters are not zero, of a model whose weights were pruned one by one; of a quantized one its integers count."""
    if not state.sparse:
        return None
    total = measure.nonzero(state.model)
    if quantized is None:
        return total
    integers = quantize.rounded_nonzero(quantized.model)
    rounded = {name: weight for name, weight in state.model.named_parameters() if name in integers}
    return total + sum(integers[name] - int(weight.count_nonzero()) for name, weight in rounded.items())


def deployed_keys(entry: dict[str, Any]) -> dict[str, Any]:
    """The keys of a row that repeat the deployed latency."""
    return {
        "latency_ms": entry["median_ms"],
        "latency_p90_ms": entry["p90_ms"],
        "runtime": entry["runtime"],
        "precision": entry["precision"],
        "batch": entry["batch"],
    }


def fastest(latencies: Latencies, batch: int) -> dict[str, Any]:
    """The entry with the smallest median at this batch size."""
    return min(
        (entry for entry in latencies if entry["batch"] == batch), key=lambda entry: entry["median_ms"]
    )
