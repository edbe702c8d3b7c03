"""The step `pack`: what the packed file is made of. The file itself is written with the artifact, of what ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lianzhi.pipeline.state import Run, State
from lianzhi.recipe import Pack


def run_pack(run: Run, state: State, step: Pack, folder: Path, *, resume: bool) -> dict[str, Any]:
    """Round what the file holds in float16, so that what is measured is what is in the file."""
    if step.other == "float16":
        with torch.no_grad():
            for tensor in state.model.state_dict().values():
                if tensor.is_floating_point() and tensor.dim() < 2:
                    tensor.copy_(tensor.half())
    return {}
