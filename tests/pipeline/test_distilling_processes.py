"""Two processes distil students of fewer layers, with and without kept logits: one result, after kills too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("distill_run.py")
TWO = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", str(SCRIPT)]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def run(program: list[str], folder: Path, *, cache: bool, kill_at: int = 0) -> int:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "LIANZHI_CACHE": str(folder.with_name(f"cache-of-{folder.name}")),
    }
    command = [*program, str(folder), "cache" if cache else "none", str(kill_at)]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def same(one: Path, other: Path) -> bool:
    first, second = torch.load(one), torch.load(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("cache", [True, False])
def test_both_processes_end_with_the_same_weights(tmp_path, cache):
    assert run(TWO, tmp_path / "out", cache=cache) == 0
    assert same(tmp_path / "out-0.pt", tmp_path / "out-1.pt")


@pytest.mark.parametrize("program", [[sys.executable, str(SCRIPT)], TWO], ids=["one", "two"])
def test_killed_again_and_again_they_end_with_the_same_weights(tmp_path, program):
    """The process that writes is killed at a later rename each time: checkpoints, kept logits, rows, the result."""
    assert run(program, tmp_path / "whole", cache=True) == 0
    for kill_at in range(4, 40, 3):
        code = run(program, tmp_path / "killed", cache=True, kill_at=kill_at)
        if code == 0:
            break
        assert code == (1 if program is TWO else -signal.SIGKILL)
    assert code == 0
    assert kill_at > 4
    assert same(tmp_path / "whole-0.pt", tmp_path / "killed-0.pt")
    assert not [item for item in (tmp_path / "killed").iterdir() if item.name.startswith(".")]
