"""On several processes the methods on CNNs learn what they learn on one, those too that compare samples with one another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cnn_processes
import pytest
import torch
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What two processes learned."""
    place: Path = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    done = subprocess.run(
        [*command, cnn_processes.__file__, str(place)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return place


@pytest.mark.slow
@pytest.mark.parametrize("case", list(cnn_processes.CASES))
def test_two_processes_learn_and_remember_the_same_as_one(folder, case):
    alone = cnn_processes.learned(case)
    for rank in (0, 1):
        found = load_file(folder / f"{case}-{rank}.safetensors")
        assert found.keys() == alone.keys()
        for name, tensor in alone.items():
            assert torch.allclose(found[name].double(), tensor.double(), rtol=1e-3, atol=1e-4), name
