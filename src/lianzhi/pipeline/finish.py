"""The end of a run: the artifact folder and the report, written whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from torch import nn

from lianzhi import artifact, deploy, files, measure, quantize, train
from lianzhi.distill.lengths import fitted
from lianzhi.pipeline.packing import write_packed
from lianzhi.pipeline.resolved import plain, recipe_yaml, resolved, with_sources
from lianzhi.pipeline.result import Result
from lianzhi.pipeline.rows import FLOAT
from lianzhi.pipeline.state import LAYERS, NOTES, Run, State
from lianzhi.quantize import QuantizedModel
from lianzhi.report import Report
from lianzhi.tasks import TextPreprocess


def finish(run: Run, state: State, rows: list[dict[str, Any]]) -> Result:
    """Assemble the artifact in the work folder, move it into the output folder, and return the result."""
    decision = rows[-1].get("decision")
    model = deployed_model(state, decision)
    if not run.leads:
        train.barrier()
        return Result(
            model, Report.from_dict(files.read_json(run.store.output / "report.json")), run.store.output
        )
    environment = measure.environment()
    preprocess = fitted(run.task, state.model) or run.task.preprocess
    if isinstance(preprocess, TextPreprocess) and preprocess != run.task.preprocess:
        state.note(f"longer texts are cut to {preprocess.max_length} tokens, which is what the model takes")
    folder = run.store.work / "artifact"
    if folder.exists():
        shutil.rmtree(folder)
    artifact.save(
        model,
        folder,
        example_inputs=run.task.example_inputs,
        preprocess=preprocess,
        labels=run.task.labels,
        tokenizer=preprocess.members if isinstance(preprocess, TextPreprocess) else None,
    )
    rows = [*rows[:-1], write_packed(run, state, shipped(state, decision), folder, rows[-1])]
    for note in _write_deployment(run, model, decision, folder, len(rows) - 2):
        state.note(note)
    _write_calibration(state, decision, folder)
    report = Report.from_dict(
        {
            "rows": [
                {key: value for key, value in row.items() if key not in ("decision", NOTES, LAYERS)}
                for row in rows
            ],
            "recipe": resolved(run, rows[-1], decision, environment),
            "environment": environment,
            "task": run.task.description(),
            "layers": _layers(state, rows),
            "decision": decision,
            "notes": state.notes,
            "artifact": {"path": str(run.store.output)},
        }
    )
    files.write_text(folder / "recipe.yaml", recipe_yaml(report.recipe))
    files.write_text(folder / "report.md", report.to_markdown())
    files.write_text(folder / "report.html", report.to_html())
    files.write_text(folder / "report.json", report.to_json())
    publish(folder, run.store.output)
    run.store.clean()
    train.barrier()
    return Result(model, report, run.store.output)


def _layers(state: State, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each layer's MACs in the original and in the result (0 of a layer that is gone), and its channels where a step pruned.

    A run that began before rows had their layers has no MACs of them.
    """
    first, last = rows[0].get(LAYERS) or {}, rows[-1].get(LAYERS) or {}
    found: dict[str, dict[str, Any]] = {name: {"name": name} for name in [*first, *last, *state.layers]}
    for name, (before, after) in state.layers.items():
        found[name] |= {"before": before, "after": after}
    for name, layer in found.items():
        if first and last and (name in first or name in last):
            layer |= {"macs_before": first.get(name), "macs": last.get(name, 0)}
    return list(found.values())


def deployed_model(state: State, decision: dict[str, Any] | None) -> nn.Module:
    """The module that computes what ships: the quantized one if its file was chosen."""
    quantized = shipped(state, decision)
    return state.model if quantized is None else quantize.plain(quantized.model)


def shipped(state: State, decision: dict[str, Any] | None) -> QuantizedModel | None:
    """The quantized model whose file was chosen."""
    if not decision or decision["source"] == FLOAT:
        return None
    return state.quantized.get(decision["runtime"])


def _write_deployment(
    run: Run, model: nn.Module, decision: dict[str, Any] | None, folder: Path, last: int
) -> list[str]:
    """Put the chosen file and a `predict.py` for its runtime beside the weights. Return what is to be said of it."""
    if decision is None:
        return []
    target: deploy.Runtime = deploy.registry.get(decision["runtime"]).build
    if not target.takes_onnx:
        target.export_module(model, run.task.example_inputs, folder)
        if target.name not in artifact.SCRIPTED or run.task.preprocess is None:
            return [artifact.NO_SCRIPT]
        artifact.write_predict(folder, runtime=target.name)
        return []
    source = run.store.step(last) / decision["source"]
    runtime = decision["runtime"]
    notes: list[str] = []
    if deploy.runs_here(runtime):
        deploy.copy_onnx(source, folder / "model.onnx")
    else:
        notes = deploy.registry.get(runtime).build.export(source, folder)["notes"]
    script = deploy.stand_in(runtime)
    if script not in artifact.SCRIPTED:
        script = "onnxruntime"
        notes = [*notes, f"predict.py runs model.onnx by {script}; there is no script for {runtime}"]
    artifact.write_predict(folder, runtime=script, precision=decision["precision"])
    return notes


def _write_calibration(state: State, decision: dict[str, Any] | None, folder: Path) -> None:
    """Put the ranges that were found beside the file that was made with them, also as TensorRT reads them."""
    quantized = shipped(state, decision)
    if quantized is None or quantized.table is None:
        return
    quantized.save_table(folder / artifact.CALIBRATION)
    if quantized.target == "tensorrt" and (amax := quantize.file_amax(folder / "model.onnx")):
        quantize.write_tensorrt_cache(folder / artifact.CACHE, amax)


def publish(folder: Path, output: Path) -> None:
    """Move every file of `folder` into `output`; the report last, as the mark that all is there.

    Of an artifact that was there before nothing stays: its ONNX file would be taken for one of the new weights.
    """
    names = sorted(os.listdir(folder), key=lambda name: (name == "report.json", name))
    older = artifact.MEMBERS - set(names) if (output / "architecture.json").is_file() else set()
    for name in sorted(older):
        _remove(output / name)
    for name in names:
        if (output / name).is_dir():
            _remove(output / name)
        os.replace(folder / name, output / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def reopen(run: Run) -> Result:
    """The result of a run that had finished before, if it was of the same recipe."""
    report = Report.from_dict(files.read_json(run.store.output / "report.json"))
    recipe = plain(run.recipe, report.rows[-1], report.decision)
    decided = {"versions"} | {key for key in ("target", "precision") if recipe[key] in ("auto", None)}
    before, now = (
        {key: value for key, value in with_sources(values, run.task).items() if key not in decided}
        for values in (report.recipe, recipe)
    )
    run.store.require_same({"recipe": before}, {"recipe": now})
    return Result(artifact.load(run.store.output), report, run.store.output)
