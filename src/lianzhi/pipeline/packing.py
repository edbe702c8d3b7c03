"""The step `pack`: a `.lzc` file beside the artifact, of the tensors that the artifact holds, int8 ones too.

What ships is known when the run ends; the file is written then, into the same folder, and its bytes are the last row's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lianzhi import artifact, codebook
from lianzhi.errors import RecipeError
from lianzhi.pipeline.stages import rows as stage_rows
from lianzhi.pipeline.state import Run, State
from lianzhi.recipe import Pack


def run_pack(run: Run, state: State, step: Pack, folder: Path, *, resume: bool) -> dict[str, Any]:
    """Round what the file holds to float16 if asked, so that what is measured is what is in the file."""
    if step.other == "float16":
        with torch.no_grad():
            for name, tensor in state.model.state_dict().items():
                if tensor.is_floating_point():
                    rounded = tensor.half()
                    if not bool(rounded.isfinite().all()):
                        raise RecipeError(f"other: '{name}' has values that float16 has not; leave it out")
                    tensor.copy_(rounded)
    return {}


def write_packed(run: Run, folder: Path, row: dict[str, Any]) -> dict[str, Any]:
    """Pack the artifact in `folder`, if the recipe says so; return the last row with the file's size and layers."""
    step = run.recipe.steps[-1]
    if not isinstance(step, Pack):
        return row
    shown = run.progress and run.leads
    report = codebook.pack(folder, folder / artifact.PACKED, other=step.other, progress=shown)
    details = {**row["details"], "stage": stage_rows(report), "packed": report.to_dict()}
    details["packed"]["path"] = artifact.PACKED
    return {**row, "bytes": report.bytes, "size_file": artifact.PACKED, "details": details}
