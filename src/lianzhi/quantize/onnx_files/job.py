"""One float file on its way to an int8 one: what is tried, timed, corrected, controlled and reported."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lianzhi import deploy, measure
from lianzhi.deploy.session import Session
from lianzhi.errors import ArtifactError, GraphError, RecipeError, TargetError
from lianzhi.quantize.export import pad_integers
from lianzhi.quantize.guard import guard_float_layers
from lianzhi.quantize.observers import registry
from lianzhi.quantize.onnx_files import speed
from lianzhi.quantize.onnx_files.calibrate import Feeds, checked_batches, observe
from lianzhi.quantize.onnx_files.compare import make_report, output_sqnr
from lianzhi.quantize.onnx_files.control import control
from lianzhi.quantize.onnx_files.correct import Shifts, corrections, shifted
from lianzhi.quantize.onnx_files.equalize import equalize
from lianzhi.quantize.onnx_files.insert import insert
from lianzhi.quantize.onnx_files.net import Net, label
from lianzhi.quantize.onnx_files.ops import rules_for
from lianzhi.quantize.onnx_files.parts import PARTS, check_ignored, nothing, rows, skipper, slow
from lianzhi.quantize.onnx_files.place import FilePlacement, place
from lianzhi.quantize.onnx_files.prepare import prepared, read_float
from lianzhi.quantize.rules import RULES, lint
from lianzhi.quantize.scheme import Schemes, schemes

TENSORRT = "tensorrt"
POOR_DB = 10.0
EQUALIZATION, CORRECTION = "equalization", "bias_correction"
TECHNIQUES = (EQUALIZATION, CORRECTION)


@dataclass(frozen=True)
class Bar:
    """How far the metric may fall below the float file's; `metric` is a function of a session, more is better."""

    max_drop: float | None
    metric: Callable[[Session], float]
    name: str


@dataclass(frozen=True)
class Built:
    """A quantized file, and what it was made of."""

    path: Path
    floating: Net
    proto: Any
    placement: FilePlacement
    ranges: dict[str, tuple[float, float]]
    scales: Any


class Job:
    """One file on its way; what was observed is kept between attempts."""

    def __init__(
        self,
        source: Path,
        target: str,
        *,
        observer: str,
        options: dict[str, Any],
        reduce_range: bool | None,
        techniques: Sequence[str],
        ignore: Sequence[str],
        threads: int | None,
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
        self.observer, self.find = observer, entry.build
        self.options: Any = entry.options(**options)
        self.techniques, self.ignore, self.threads = techniques, ignore, threads
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
        return checked_batches(calibration, self.exact())

    def exact(self) -> Session:
        """The float file, as ONNX Runtime computes it."""
        return deploy.load(self.source, runtime="onnxruntime")

    def load(self, path: Path) -> Session:
        """A file on the target where it is here, else on ONNX Runtime."""
        return deploy.load(path, runtime=self.target if speed.can_be_timed(self.target) else "onnxruntime")

    def best(
        self, batches: list[Feeds], folder: Path, bar: Bar | None, *, timed: bool
    ) -> tuple[dict[str, Any], Path | None]:
        """The report and file of the first part that is not slower than float; None: the float file."""
        base: dict[str, Any] = {"target": self.target, "reduce_range": self.reduce_range}
        base["observer"] = {"name": self.observer, **self.options.to_dict()}
        try:
            model = prepared(self.float_proto, str(self.source))
        except GraphError as error:
            return base | nothing(str(error), []), None
        kinds = {node.op_type for node in model.graph.node}
        check_ignored(model, self.ignore)
        simple = deploy.write_onnx(model, folder / "float.onnx") if timed else None
        base["techniques"] = list(self.techniques)
        if EQUALIZATION in self.techniques:
            equalize(model, batches)
        attempts: list[dict[str, Any]] = []
        for part, ops in PARTS.items():
            if attempts and not (ops & kinds and (PARTS["all layers"] - ops) & kinds):
                continue  # the same as all of them, or nothing at all
            try:
                built = self.build(model, ops, batches, folder / f"{len(attempts)}.onnx")
                reason = "no layer has an integer kernel"
                if built is not None:
                    self.load(built.path)
            except TargetError as error:
                built, reason = None, str(error)
            if built is None:
                attempts.append({"quantized": part, "reason": reason})
                continue
            if not timed or not speed.can_be_timed(self.target):
                why = "not asked for" if not timed else f"{self.target} does not run here"
                facts: dict[str, Any] = {"quantized": part, "worth_it": None, "timing": why}
            else:
                timing = self.timing(simple, built.path, batches)
                attempts.append({"quantized": part, **timing})
                if timing["ratio"] > 1:
                    continue
                facts = {"quantized": part, "worth_it": True, "timing": timing, "attempts": attempts}
            report, file = self.finished(model, ops, built, batches, folder, bar)
            if file is not None and report.get("control", {}).get("returned") and "attempts" in facts:
                timing = self.timing(simple, file, batches)
                attempts.append({"quantized": f"{part}, some returned", **timing})
                facts["timing"] = timing
                if timing["ratio"] > 1:
                    report["reason"] = slow(attempts[-1:], self.target)
                    file = None
            if file is not None:
                return base | report | facts, file
            return self.kept(base | {"control": report["control"]}, report["reason"], model, attempts, simple)
        return self.kept(base, slow(attempts, self.target), model, attempts, simple)

    def timing(self, simple: Path | None, file: Path, batches: list[Feeds]) -> dict[str, Any]:
        """Float and int8 in turns."""
        return speed.compare_speed(
            self.source, simple, file, batches, target=self.target, threads=self.threads
        ).to_dict()

    def kept(
        self,
        base: dict[str, Any],
        reason: str,
        model: Any,
        attempts: list[dict[str, Any]],
        simple: Path | None,
    ) -> tuple[dict[str, Any], Path | None]:
        """The float file is written, the simplified one where it is the fastest."""
        controlled = "control" in base
        slower = any("ratio" in item for item in attempts) and not controlled
        skipped = skipper(
            frozenset() if slower else PARTS["all layers"],
            self.ignore,
            [label(node) for node in model.graph.node] if controlled else (),
        )
        left = rows(place(Net(model), rules_for(self.target), skipped).left)
        result = base | nothing(reason, left) | {"attempts": attempts}
        if not attempts or attempts[-1].get("baseline") != speed.SIMPLIFIED:
            return result, None
        result["notes"].append(
            "the float file is written as it was simplified, which is faster and computes the same"
        )
        return result, simple

    def build(
        self,
        model: Any,
        ops: frozenset[str],
        batches: list[Feeds],
        path: Path,
        *,
        returned: Collection[str] = (),
        shifts: Shifts | None = None,
    ) -> Built | None:
        """Quantize the ops of some kinds but those `returned`, and write the file; None where nothing is left."""
        import onnx

        work = onnx.ModelProto()
        work.CopyFrom(model)
        rules, skipped = rules_for(self.target), skipper(ops, self.ignore, returned)
        floating = Net(model)
        placement = place(floating, rules, skipped)
        if not placement.weights and not placement.tables:
            return None
        self.check_weights(floating, placement)
        layers = {node.output[0] for node in placement.weights}
        shifted(work, {name: shift for name, shift in (shifts or {}).items() if name in layers})
        net = Net(work)
        fresh = [name for name in placement.roots if name not in self.seen]
        if fresh:
            self.seen |= observe(model, fresh, batches, histogram=self.options.histogram)
        assert self.grids.activations is not None
        ranges = {
            name: self.find(self.seen[name], self.grids.activations, self.options)
            for name in placement.roots
            if name in self.seen
        }
        scales = insert(net, place(net, rules, skipped), ranges, self.grids)
        pad_integers(work)
        if self.target != TENSORRT:
            guard_float_layers(work)
        deploy.write_onnx(work, path)
        return Built(path, floating, work, placement, ranges, scales)

    def check_weights(self, net: Net, placement: FilePlacement) -> None:
        """Refuse a layer whose weight no integers can hold, or such a table."""
        held = [(node, 1) for node in placement.weights] + [(node, 0) for node in placement.tables]
        for node, position in held:
            if not np.isfinite(np.asarray(net.array(node.input[position]))).all():
                raise GraphError(
                    f"{self.source}: the weight of '{label(node)}' holds NaN or infinite values; "
                    f"check how the file was made"
                )

    def finished(
        self,
        model: Any,
        ops: frozenset[str],
        built: Built,
        batches: list[Feeds],
        folder: Path,
        bar: Bar | None,
    ) -> tuple[dict[str, Any], Path | None]:
        """Correct the biases, return layers to float where a bar asks for it, check, and report."""
        shifts: Shifts = {}
        if CORRECTION in self.techniques:
            shifts = corrections(built.floating, built.proto, built.placement.weights, batches)

        def again(returned: Collection[str]) -> Built | None:
            return self.build(model, ops, batches, folder / "trial.onnx", returned=returned, shifts=shifts)

        def session(returned: Collection[str]) -> Session | None:
            made = again(returned)
            return None if made is None else self.load(made.path)

        record: dict[str, Any] = {}
        if bar is not None:
            held = (*built.placement.tables, *built.placement.weights)
            names = list(dict.fromkeys(label(node) for node in held))
            record = control(session, names, self.exact(), batches, bar.metric, bar.max_drop)
            record["metric"] = bar.name
        final = again(record.get("returned", ()))
        if final is None or not record.get("met", True):
            return {"control": record, "reason": _unmet(record)}, None
        report = make_report(
            final.floating,
            final.proto,
            final.placement,
            final.ranges,
            self.seen,
            final.scales,
            batches,
            self.grids,
        )
        known = {name for rule in RULES for name in rule.targets}
        report["lint"] = [str(item) for item in lint(final.path, self.target)] if self.target in known else []
        return report | self.checked(final.path, batches) | (
            {"control": record} if record else {}
        ), final.path

    def checked(self, path: Path, batches: list[Feeds]) -> dict[str, Any]:
        """The file's results against float32's, on the target where it is here, else on ONNX Runtime."""
        session = self.load(path)
        ratio = output_sqnr(self.exact(), session, batches)
        notes = []
        if ratio < POOR_DB:
            notes.append(
                f"the results are far from float's ({ratio:.1f} dB): check the metric, give max_drop, or keep the "
                f"layers that the report names as worst in float with ignore=[…]"
            )
        if self.target == TENSORRT and deploy.registry.get(TENSORRT).build.installed():
            notes += [f"TensorRT's parser refuses it: {line}" for line in deploy.tensorrt.check(path)]
        if self.reduce_range and self.target != TENSORRT:
            notes.append(
                "weights have 7 bits, so that this processor's products do not saturate, or as asked"
            )
        return {"output_sqnr_db": ratio, "checked_on": session.runtime, "notes": notes}


def _unmet(record: dict[str, Any]) -> str:
    """Why accuracy control ends with the float file."""
    if record["met"]:
        return f"max_drop {record['max_drop']:g} is met only with every layer in float, so the float file is kept"
    values = record["accuracy"]
    return (
        f"max_drop {record['max_drop']:g} is not met by int8 with {len(record['returned'])} layers in float "
        f"({record['metric']} {values['quantized']:.4f}, of float {values['float']:.4f}), so the float file is kept"
    )
