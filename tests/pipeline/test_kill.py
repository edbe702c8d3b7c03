"""SIGKILL at random moments, then --resume: the same final weights."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from killing import run_small, summary, weights

NET = """
from torch import nn

def net():
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, 2), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
    )
"""
RECIPE = """
model: {name: net, file: NET}
task: {name: synthetic, samples: 512, classes: 3, shape: [3, 16, 16]}
target: onnxruntime
precision: int8
measure: {batches: [1], repeats: 2}
steps:
  - train: {epochs: 2, batch_size: 64, lr: 0.05}
  - sparsify: {epochs: 1, batch_size: 64, lr: 0.02}
  - prune: {criterion: bn_scale, ratio: 0.5, reestimate: 2}
  - distill: {epochs: 2, batch_size: 64, lr: 0.05}
  - quantize: {calibration: 64}
"""


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
    (tmp_path / "net.py").write_text(NET)
    recipe.write_text(RECIPE.replace("NET", str(tmp_path / "net.py")))
    begin = time.monotonic()
    assert start(recipe, tmp_path / "whole").wait() == 0
    duration = time.monotonic() - begin
    draw = random.Random(seed)
    moments = sorted(draw.uniform(0.15, 1.0) for _ in range(kills))
    killed = 0
    for moment in moments:
        process = start(recipe, tmp_path / "killed")
        time.sleep(duration * moment * 0.9)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed, "every process had finished before it was killed"
    assert start(recipe, tmp_path / "killed").wait() == 0
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert not (tmp_path / "killed" / ".work").exists()


@pytest.mark.slow
def test_killed_twice(tmp_path):
    kill_and_resume(tmp_path, kills=2, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_ten_times(tmp_path):
    kill_and_resume(tmp_path, kills=10, seed=1)


SMALL = """
model: {name: lenet5_classic, num_classes: 3, in_channels: 3, image_size: 32}
task: {name: synthetic, samples: 128, classes: 3, shape: [3, 32, 32]}
target: onnxruntime
precision: int8
measure: {batches: [1], repeats: 1, threads: 1}
steps:
  - train: {epochs: 1, batch_size: 64, lr: 0.05}
  - quantize: {calibration: 32}
  - prune: {ratio: 0.25}
  - distill: {epochs: 1, batch_size: 64, lr: 0.05}
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_rename_after_rename(tmp_path):
    """Each process lives for more renames than the last one: through every step, and the publishing."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(SMALL)
    whole = run_small(recipe, tmp_path / "whole", 0)
    assert whole.returncode == 0, whole.stderr
    for kills in range(60):
        done = run_small(recipe, tmp_path / "killed", 2 + 3 * kills)
        if done.returncode != -signal.SIGKILL:
            break
    assert done.returncode == 0, done.stderr
    assert kills >= 4
    assert summary(tmp_path / "killed") == summary(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_while_publishing(tmp_path):
    """Killed at each of the last renames of the whole run: members moved one by one, the work folder removed."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(SMALL)
    whole = run_small(recipe, tmp_path / "whole", 0)
    assert whole.returncode == 0, whole.stderr
    calls = int(whole.stdout.split()[-1])
    for back in (0, 1, 2, 3, 6):
        out = tmp_path / f"killed-{back}"
        assert run_small(recipe, out, calls - back).returncode == -signal.SIGKILL
        again = run_small(recipe, out, 0)
        assert again.returncode == 0, again.stderr
        assert summary(out) == summary(tmp_path / "whole")
        assert not [item for item in out.iterdir() if item.name.startswith(".")]
