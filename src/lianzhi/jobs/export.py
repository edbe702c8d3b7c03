"""From an artifact folder or an ONNX file to the files that a target loads."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from lianzhi import artifact, codebook, deploy, files, measure
from lianzhi.errors import ArtifactError, RecipeError, TargetError
from lianzhi.jobs.artifacts import Saved
from lianzhi.jobs.members import BESIDE, WEIGHTS, copied, require_elsewhere, unpacked

REPORT = "export.json"


def export(
    model: str | Path,
    *,
    target: str,
    output: str | Path,
    codes: bool = False,
    force: bool = False,
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the files of a target into the folder `output`, whole or not at all; return what was done.

    An artifact without an ONNX file is exported from its module. The target loads what was written, if it is
    installed here. With `codes` weights of few distinct values become a codebook and codes. `options` are the target's own (`compute_capability` of tensorrt). Raises
    `ArtifactError` for a model that is none, `TargetError` where the target cannot take it, and `RecipeError` for `codes`
    where there are none.
    """
    runtime: deploy.Runtime = deploy.registry.get(target).build
    if codes and not runtime.takes_onnx:
        raise RecipeError(
            f"--codes is of ONNX files, and {target} loads the weights themselves; leave it out"
        )
    saved = Saved(model)
    if not force:
        files.require_empty(output)
    require_elsewhere(output, saved.folder)
    with files.whole_folder(output, overwrite=force, owned=artifact.MEMBERS | {REPORT}) as folder:
        if target == "pytorch" and saved.is_module:
            runtime.require()
            names = [*_weights(saved, folder), *copied(saved.folder, folder, BESIDE)]
            artifact.load(folder)
            result: dict[str, Any] = {"files": names, "precision": "f32", "loaded": True, "notes": []}
        elif saved.is_module and not runtime.takes_onnx:
            result = _from_module(saved, runtime, folder, options or {})
        else:
            result = _from_onnx(saved, runtime, folder, options or {}, codes=codes)
        result = {"model": str(model), "target": target, **result, "bytes": measure.size(folder)}
        files.write_json(folder / REPORT, result)
    return {**result, "path": str(output)}


def export_text(result: dict[str, Any]) -> str:
    """What was written, for people."""
    how = "loaded there" if result["loaded"] else "not loaded"
    lines = [
        f"{result['model']} for {result['target']}, {result['precision']}, {how}: {result['bytes']:,} bytes in {result['path']}",
        *(f"  {name}" for name in result["files"]),
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in result["notes"])])


def _weights(saved: Saved, folder: Path) -> list[str]:
    """Weights and architecture: the artifact's own, or those of a packed file."""
    return unpacked(saved.path, folder) if saved.packed else copied(saved.folder, folder, WEIGHTS)


def _from_module(
    saved: Saved, runtime: deploy.Runtime, folder: Path, options: dict[str, Any]
) -> dict[str, Any]:
    """What a target writes of the module, with what its script reads, and the script."""
    if options:
        raise TargetError(f"target '{runtime.name}' has no option '{next(iter(options))}'; leave it out")
    result = runtime.export_module(saved.module(), saved.example_inputs(), folder)
    names = [*result["files"], *copied(saved.folder, folder, BESIDE)]
    if runtime.name not in artifact.SCRIPTED or not (folder / "preprocess.json").is_file():
        return {**result, "files": names, "notes": [*result["notes"], artifact.NO_SCRIPT]}
    script = artifact.write_predict(folder, runtime=runtime.name)
    return {**result, "files": [*names, script.name]}


def _from_onnx(
    saved: Saved, runtime: deploy.Runtime, folder: Path, options: dict[str, Any], *, codes: bool
) -> dict[str, Any]:
    decision = saved.decision
    with tempfile.TemporaryDirectory(prefix="lianzhi-") as place:
        source = saved.path / "model.onnx" if saved.path.is_dir() else saved.path
        notes = []
        if saved.is_module and (saved.packed or not source.is_file()):
            source = deploy.export_onnx(saved.module(), saved.example_inputs(), Path(place) / "model.onnx")
            what = "packed file" if saved.packed else "artifact"
            notes.append(f"the {what} holds no ONNX file; it was exported from its module")
        elif source.suffix != ".onnx":
            raise ArtifactError(f"{source}: not an artifact folder, nor an .onnx or .lzc file")
        if codes:
            source, dense = Path(place) / "codes.onnx", source
            count = codebook.write_codes(dense, source)
            if not count:
                raise RecipeError(
                    f"--codes: no weight of {saved.path} (an initializer of 1,024 numbers or more, and no input) has few "
                    f"distinct values that are not codes yet; share its weights first (lianzhi pack --bits), or leave it out"
                )
            notes.append(f"{count} weights are a codebook and codes; the rest is dense")
        result = runtime.export(source, folder, **options)
    made_for = decision["runtime"] if decision else None
    if made_for not in (None, runtime.name) and result["precision"] in ("int8", "int4", "mixed"):
        notes.append(
            f"its quantizers were placed for {made_for}; for the fastest file quantize with target {runtime.name}"
        )
    names = [*result["files"]]
    if saved.is_module or saved.path.name == "model.onnx":
        names += copied(saved.folder, folder, BESIDE)
    if runtime.name in artifact.SCRIPTED and (folder / "preprocess.json").is_file():
        artifact.write_predict(folder, runtime=runtime.name, precision=result["precision"])
        names.append("predict.py")
    return {**result, "files": names, "notes": [*notes, *result["notes"]]}
