"""SIGKILL at random moments, then --resume: the same final weights."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RECIPE = """
model: {name: resnet20, num_classes: 3}
task: {name: synthetic, samples: 512, classes: 3, shape: [3, 16, 16]}
target: onnxruntime
measure: {batches: [1], repeats: 2}
steps:
  - train: {epochs: 2, batch_size: 64, lr: 0.05}
  - sparsify: {epochs: 1, batch_size: 64, lr: 0.02}
  - prune: {criterion: bn_scale, ratio: 0.5, reestimate: 2}
  - distill: {epochs: 2, batch_size: 64, lr: 0.05}
  - quantize: {calibration: 64}
"""


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def start(recipe: Path, out: Path) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "lianzhi",
        "compress",
        str(recipe),
        "-o",
        str(out),
        "--resume",
        "--quiet",
    ]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def kill_and_resume(tmp_path: Path, kills: int, seed: int) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    begin = time.monotonic()
    assert start(recipe, tmp_path / "whole").wait() == 0
    duration = time.monotonic() - begin
    draw = random.Random(seed)
    moments = sorted(draw.uniform(0.15, 1.0) for _ in range(kills))
    for moment in moments:
        process = start(recipe, tmp_path / "killed")
        time.sleep(duration * moment * 0.9)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(recipe, tmp_path / "killed").wait() == 0
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert not (tmp_path / "killed" / ".work").exists()


def test_killed_twice(tmp_path):
    kill_and_resume(tmp_path, kills=2, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_ten_times(tmp_path):
    kill_and_resume(tmp_path, kills=10, seed=1)
