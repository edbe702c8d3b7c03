"""Quantize a float ONNX file: prepare, place, calibrate, insert, check, time, write."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lianzhi import deploy, files, measure
from lianzhi.errors import ArtifactError, GraphError, RecipeError, TargetError
from lianzhi.quantize.batches import samples
from lianzhi.quantize.export import pad_integers
from lianzhi.quantize.guard import guard_float_layers
from lianzhi.quantize.observers import registry
from lianzhi.quantize.onnx_files import speed
from lianzhi.quantize.onnx_files.calibrate import Feeds, checked_batches, observe
from lianzhi.quantize.onnx_files.compare import make_report, output_sqnr
from lianzhi.quantize.onnx_files.insert import insert
from lianzhi.quantize.onnx_files.net import Net
from lianzhi.quantize.onnx_files.ops import rules_for
from lianzhi.quantize.onnx_files.parts import PARTS, check_ignored, nothing, rows, skipper, slow
from lianzhi.quantize.onnx_files.place import place
from lianzhi.quantize.onnx_files.prepare import prepared, read_float, side_paths
from lianzhi.quantize.options import DEFAULT_OBSERVER
from lianzhi.quantize.rules import RULES, lint
from lianzhi.quantize.scheme import Schemes, schemes

TENSORRT = "tensorrt"
POOR_DB = 10.0


def quantize_onnx(
    source: str | os.PathLike[str],
    calibration: Iterable[Any],
    *,
    target: str,
    output: str | os.PathLike[str],
    measure: bool = True,
    observer: str = DEFAULT_OBSERVER,
    observer_options: dict[str, Any] | None = None,
    reduce_range: bool | None = None,
    ignore: Sequence[str] = (),
    threads: int | None = None,
) -> dict[str, Any]:
    """Quantize a float ONNX file, whoever made it, and write `output`; return the report.

    ```python
    report = quantize.quantize_onnx("detector.onnx", batches, target="onnxruntime", output="detector-int8.onnx")
    report["worth_it"], report["left_float"]
    ```

    `calibration` holds dicts of arrays by input name, or arrays for a file of one input. With `measure` int8 and
    float are timed in turns on the target, if that runtime is here; where int8 is slower, only the
    convolutions are quantized, then only the matrix products, and at last the float file is written, and the
    report has ``worth_it: False`` with the ``reason``. `ignore` holds patterns of node names that stay float.
    What cannot be quantized is in ``left_float`` with the reason.

    Raises `DataError` for calibration data that are empty, not finite or of the wrong shape, `TargetError` for
    a file that is not ONNX or is quantized already, `GraphError` for one that cannot be prepared. Nothing is
    written then.
    """
    start = time.perf_counter()
    job = _Job(Path(source), target, observer, observer_options or {}, reduce_range)
    job.check_output(Path(output))
    batches = job.read(calibration)
    with tempfile.TemporaryDirectory(prefix="lianzhi-") as folder:
        report, file = job.best(batches, Path(folder), ignore, threads, timed=measure)
        _write(job, file, Path(output))
    report |= {
        "source": str(source),
        "output": str(output),
        "bytes": {"float": _bytes(Path(source)), "output": _bytes(Path(output))},
        "calibration": {"batches": len(batches), "samples": samples(batches)},
        "seconds": time.perf_counter() - start,
    }
    return report


class _Job:
    """One file on its way; what was observed is kept between attempts."""

    def __init__(
        self, source: Path, target: str, observer: str, options: dict[str, Any], reduce_range: bool | None
    ) -> None:
        if reduce_range is None:
            reduce_range = measure.cpu().saturates
        self.source, self.target, self.reduce_range = source, target, reduce_range
        self.grids: Schemes = schemes(target, "int8", "int8", reduce_range=reduce_range)
        if not deploy.registry.get(target).build.takes_onnx:
            raise RecipeError(
                f"target '{target}' takes no ONNX file; choose {', '.join(deploy.onnx_targets())}"
            )
        entry = registry.get(observer)
        assert entry.config is not None
        self.observer, self.find = observer, entry.build
        self.options: Any = entry.config(**options)
        self.float_proto = read_float(source)
        self.seen: dict[str, Any] = {}

    def check_output(self, output: Path) -> None:
        """Refuse now what could not be written at the end."""
        if output.suffix != ".onnx":
            raise ArtifactError(f"{output}: the name of an ONNX file ends in .onnx")
        if not output.parent.is_dir():
            raise ArtifactError(f"{output}: the folder {output.parent} does not exist; make it first")
        if output.exists() and output.samefile(self.source):
            raise ArtifactError(f"{output}: it is the float file itself; give the int8 file another name")

    def read(self, calibration: Iterable[Any]) -> list[Feeds]:
        """The calibration data, checked against the file's inputs. The target loads the float file, if it is here."""
        if speed.can_be_timed(self.target):
            deploy.load(self.source, runtime=self.target)
        return checked_batches(calibration, deploy.load(self.source, runtime="onnxruntime"))

    def best(
        self, batches: list[Feeds], folder: Path, ignore: Sequence[str], threads: int | None, *, timed: bool
    ) -> tuple[dict[str, Any], Path | None]:
        """The report and file of the first attempt that is not slower than float; None: the float file."""
        base: dict[str, Any] = {"target": self.target, "reduce_range": self.reduce_range}
        base["observer"] = {"name": self.observer, **self.options.to_dict()}
        try:
            model = prepared(self.float_proto, str(self.source))
        except GraphError as error:
            return base | nothing(str(error), []), None
        kinds = {node.op_type for node in model.graph.node}
        check_ignored(model, ignore)
        attempts: list[dict[str, Any]] = []
        simple = deploy.write_onnx(model, folder / "float.onnx") if timed else None
        for part, ops in PARTS.items():
            if attempts and not (ops & kinds and (PARTS["all layers"] - ops) & kinds):
                continue  # the same as all of them, or nothing at all
            report, file = self.attempt(model, ops, batches, folder / f"{len(attempts)}.onnx", ignore)
            if file is None:
                attempts.append(
                    {"quantized": part, "reason": report.get("reason", "no layer has an integer kernel")}
                )
                continue
            if not timed or not speed.can_be_timed(self.target):
                why = "not asked for" if not timed else f"{self.target} does not run here"
                return base | report | {"quantized": part, "worth_it": None, "timing": why}, file
            timing = speed.compare_speed(
                self.source, simple, file, batches, target=self.target, threads=threads
            )
            attempts.append({"quantized": part, **timing.to_dict()})
            if timing.ratio <= 1:
                facts = {
                    "quantized": part,
                    "worth_it": True,
                    "timing": timing.to_dict(),
                    "attempts": attempts,
                }
                return base | report | facts, file
        left = report["left_float"]
        if any("ratio" in item for item in attempts):
            left = rows(place(Net(model), rules_for(self.target), skipper(frozenset(), ignore)).left)
        result = base | nothing(slow(attempts, self.target), left) | {"attempts": attempts}
        if attempts[-1].get("baseline") != speed.SIMPLIFIED:
            return result, None
        result["notes"].append(
            "the float file is written as it was simplified, which is faster and computes the same"
        )
        return result, simple

    def attempt(
        self, model: Any, ops: frozenset[str], batches: list[Feeds], path: Path, ignore: Sequence[str]
    ) -> tuple[dict[str, Any], Path | None]:
        """Quantize the ops of some kinds; None where there is nothing to quantize."""
        import onnx

        work = onnx.ModelProto()
        work.CopyFrom(model)
        net, rules = Net(work), rules_for(self.target)
        placement = place(net, rules, skipper(ops, ignore))
        if not placement.weights:
            return {"left_float": rows(placement.left)}, None
        fresh = [name for name in placement.roots if name not in self.seen]
        self.seen |= observe(model, fresh, batches, histogram=self.options.histogram)
        seen = {name: self.seen[name] for name in placement.roots if name in self.seen}
        assert self.grids.activations is not None
        ranges = {
            name: self.find(facts, self.grids.activations, self.options) for name, facts in seen.items()
        }
        scales = insert(net, placement, ranges, self.grids)
        pad_integers(work)
        if self.target != TENSORRT:
            guard_float_layers(work)
        floating = Net(model)
        original = place(floating, rules, skipper(ops, ignore))
        report = make_report(floating, work, original, ranges, seen, scales, batches, self.grids)
        deploy.write_onnx(work, path)
        known = {name for rule in RULES for name in rule.targets}
        report["lint"] = [str(item) for item in lint(path, self.target)] if self.target in known else []
        try:
            return report | self.checked(path, batches), path
        except TargetError as error:
            return {"left_float": rows(placement.left), "reason": str(error)}, None

    def checked(self, path: Path, batches: list[Feeds]) -> dict[str, Any]:
        """The file's results against float32's, on the target where it is here, else on ONNX Runtime."""
        where = self.target if speed.can_be_timed(self.target) else "onnxruntime"
        exact = deploy.load(self.source, runtime="onnxruntime")
        ratio = output_sqnr(exact, deploy.load(path, runtime=where), batches)
        notes = []
        if ratio < POOR_DB:
            notes.append(
                f"the results are far from float's ({ratio:.1f} dB): check the metric, and keep the layers that the "
                f"report names as worst in float with ignore=[…]"
            )
        if self.target == TENSORRT and deploy.registry.get(TENSORRT).build.installed():
            notes += [f"TensorRT's parser refuses it: {line}" for line in deploy.tensorrt.check(path)]
        if self.reduce_range and self.target != TENSORRT:
            notes.append(
                "weights have 7 bits, so that this processor's products do not saturate, or as asked"
            )
        return {"output_sqnr_db": ratio, "checked_on": where, "notes": notes}


def _write(job: _Job, file: Path | None, output: Path) -> None:
    """The chosen file, or the source as it is."""
    import onnx

    if file is not None:
        deploy.write_onnx(onnx.load(str(file)), output)
    elif side_paths(job.source):
        deploy.write_onnx(job.float_proto, output)
    else:
        files.write_bytes(output, files.read_bytes(job.source, limit=1 << 31))


def _bytes(path: Path) -> int:
    """Of the file and those beside it that hold its weights."""
    return sum(item.stat().st_size for item in (path, *side_paths(path)))
