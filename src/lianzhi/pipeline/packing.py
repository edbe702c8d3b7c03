"""The step `pack`: a `.lzc` file beside the artifact, of the tensors that the artifact holds, int8 ones too.

What ships is known when the run ends; the file is written then, into the same folder, and its bytes are the last row's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi import artifact, codebook, quantize
from lianzhi.errors import RecipeError
from lianzhi.pipeline.stages import rows as stage_rows
from lianzhi.pipeline.state import Run, State
from lianzhi.quantize import QuantizedModel
from lianzhi.recipe import Pack


def run_pack(run: Run, state: State, step: Pack, folder: Path, *, resume: bool) -> dict[str, Any]:
    """Round what the file holds to float16 if asked, so that what is measured is what is in the file."""
    with torch.no_grad():
        for tensor in to_round(state.model, step):
            tensor.copy_(tensor.half())
    return {}


def to_round(model: nn.Module, step: Pack) -> list[Tensor]:
    """The tensors that the step rounds to float16. Raises `RecipeError` for one that has values beyond it."""
    found = []
    for name, tensor in model.state_dict().items() if step.other == "float16" else ():
        if tensor.is_floating_point() and tensor.itemsize > 2 and not tensor.is_meta:
            if not codebook.fits_float16(tensor):
                raise RecipeError(f"other: '{name}' has values that float16 has not; leave it out")
            if not codebook.fades_in_float16(tensor):  # as `codebook.pack` keeps it
                found.append(tensor)
    return found


def write_packed(
    run: Run, state: State, quantized: QuantizedModel | None, folder: Path, row: dict[str, Any]
) -> dict[str, Any]:
    """Pack the artifact in `folder`, if the recipe says so; return the last row with the file's size and layers.

    Of a quantized model the integers are packed; biases, tables and groups of weights are as in the artifact. Its ratio is
    that to the float model which was quantized.
    """
    step = run.recipe.steps[-1]
    if not isinstance(step, Pack):
        return row
    shown, file = run.progress and run.leads, folder / artifact.PACKED
    if quantized is None:
        report = codebook.pack(folder, file, other=step.other, progress=shown)
    else:
        module = quantize.plain(quantize.with_integers(quantized.model))
        report = codebook.pack(module, file, example_inputs=run.task.example_inputs, progress=shown)
        report = replace(report, bytes_float=codebook.float_bytes(state.model.state_dict()))
    details = {**row["details"], "stage": stage_rows(report), "packed": report.to_dict()}
    details["packed"]["path"] = artifact.PACKED
    return {**row, "bytes": report.bytes, "size_file": artifact.PACKED, "details": details}
