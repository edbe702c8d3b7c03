"""From a model to a packed file, and back to its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lianzhi import artifact, codebook, files, measure
from lianzhi.codebook.container import Reader
from lianzhi.errors import ArtifactError
from lianzhi.jobs.members import BESIDE, copied, require_elsewhere, unpacked
from lianzhi.jobs.outputs import require_free

Report = Callable[[str, int, int], None]
WEIGHTS = ".safetensors"


def pack(
    model: str | Path,
    output: str | Path,
    *,
    bits: int | dict[str, int] | None = None,
    rate: float | dict[str, float] | None = None,
    sparsity: float | None = None,
    other: Any = "float32",
    force: bool = False,
    report: Report | None = None,
) -> codebook.PackReport:
    """Pack an artifact folder, or a file of weights, into the file `output`.

    Raises `ArtifactError` for a model that is none, and for an output that exists, unless `force`.
    """
    require_free(output, ".lzc", force=force)
    path = Path(model)
    if not path.exists():
        raise ArtifactError(f"{model}: no such artifact folder or file")
    # of a file that is packed, pack says what to do
    if not path.is_dir() and path.suffix not in (WEIGHTS, ".lzc"):
        raise ArtifactError(f"{model}: give an artifact folder, or a {WEIGHTS} file")
    options: dict[str, Any] = {"bits": bits, "rate": rate, "sparsity": sparsity, "other": other}
    return codebook.pack(path, output, progress=report or False, **options)


def unpack(
    file: str | Path, output: str | Path, *, force: bool = False, report: Report | None = None
) -> dict[str, Any]:
    """Write a packed file's tensors as one `.safetensors` file, or its model as an artifact folder, as `output` is named.

    A folder gets the preprocessing, labels and tokenizer that lie beside the file; a `.safetensors` file says in its metadata
    in which order its tensors were and which names are of one, so that tensors alone are packed into the same file again.

    Raises `ArtifactError` for a file that is damaged, an output that exists, unless `force`, and a folder where the
    file holds tensors only, `RecipeError` for the folder that the file itself lies in.
    """
    output = Path(output)
    if output.suffix != WEIGHTS:
        return _unpacked_folder(Path(file), output, force=force)
    require_free(output, WEIGHTS, force=force)
    with Reader(file) as reader:
        total = len(reader.entries)
        owners = {name: entry.same or name for name, entry in reader.entries.items()}
        tensors = {}
        for name, tensor in reader.tensors():
            tensors[name] = tensor
            if report is not None:
                report(name, len(tensors), total)
    files.write_tensors(output, tensors, owners=owners)
    return {"file": str(file), "path": str(output), "tensors": total, "bytes": output.stat().st_size}


def _unpacked_folder(file: Path, output: Path, *, force: bool) -> dict[str, Any]:
    if not force:
        files.require_empty(output)
    require_elsewhere(output, file.parent)
    with files.whole_folder(output, overwrite=force, owned=artifact.MEMBERS) as folder:
        unpacked(file, folder)
        copied(file.parent, folder, BESIDE)
        size = measure.size(folder)
    return {"file": str(file), "path": str(output), "bytes": size}
