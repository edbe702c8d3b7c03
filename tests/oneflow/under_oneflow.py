"""The other process: scripts under OneFlow's own Python, and tensors there and back as NumPy's files."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

SCRIPTS = Path(__file__).parent / "scripts"
INPUTS, OUTPUTS = "inputs.npz", "outputs.npz"
TOLERANCE = 1e-4


@dataclass(frozen=True)
class OneFlow:
    """Runs scripts with the Python of an environment that has OneFlow, and neither PyTorch nor Lianzhi."""

    python: Path

    def run(self, script: str | Path, *arguments: object) -> str:
        """What a script prints; one of the folder `scripts` by its name."""
        file = SCRIPTS / f"{script}.py" if isinstance(script, str) else script
        libraries = sorted(self.python.absolute().parents[1].glob("lib/python3*/site-packages/nvidia/*/lib"))
        environment = {
            **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
            "OMP_NUM_THREADS": "1",
        }
        command = [str(self.python.absolute()), str(file), *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        said = done.stderr.decode("utf-8", "replace")
        assert done.returncode == 0, f"{' '.join(command)}\n{said[-3000:]}"
        return done.stdout.decode("utf-8")

    def outputs(self, folder: Path, inputs: Any) -> list[Tensor]:
        """What the model of a folder gives there, from its `model.py` and `weights` alone."""
        place = Path(tempfile.mkdtemp(prefix="asked-", dir=folder.parent))
        shutil.copyfile(folder / "model.py", place / "model.py")
        shutil.copytree(folder / "weights", place / "weights")
        save(place / INPUTS, inputs)
        self.run("outputs", place)
        return read(place / OUTPUTS)


def save(file: Path, inputs: Any) -> None:
    """Inputs of a model: a tensor, a tuple, or a dict of keyword tensors; keywords keep their names."""
    tensors = inputs if isinstance(inputs, Mapping) else dict(enumerate(pytree.tree_leaves(inputs)))
    np.savez(file, **{str(name): tensor.numpy() for name, tensor in tensors.items()})


def read(file: Path) -> list[Tensor]:
    """The arrays of a file in their order."""
    with np.load(file) as arrays:
        return [torch.from_numpy(arrays[name]) for name in arrays.files]


def assert_agree(found: list[Tensor], expected: Any) -> None:
    """The same shapes and types, values within 1e-4 of the largest, and at least of 1; the same class for each sample."""
    wanted = [item for item in pytree.tree_leaves(expected) if isinstance(item, Tensor)]
    assert [(item.shape, item.dtype) for item in found] == [(item.shape, item.dtype) for item in wanted]
    for one, other in zip(found, wanted, strict=True):
        finite = other[other.isfinite()].abs() if other.is_floating_point() else other.new_zeros(0)
        largest = max(1.0, float(finite.max()) if len(finite) else 1.0)
        torch.testing.assert_close(one, other, rtol=0, atol=TOLERANCE * largest, equal_nan=True)
