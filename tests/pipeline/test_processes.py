"""`torchrun … -m lianzhi compress`: two processes make one result, and go on after a kill of both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lianzhi import files

RECIPE = """
model: {name: resnet20, num_classes: 3}
task: {name: synthetic, samples: 192, classes: 3, shape: [3, 16, 16]}
target: onnxruntime
precision: int8
measure: {batches: [1], repeats: 1, threads: 1}
steps:
  - train: {epochs: 1, batch_size: 32, lr: 0.05}
  - sparsify: {epochs: 1, batch_size: 32, lr: 0.02}
  - prune: {criterion: bn_scale, ratio: 0.5}
  - distill: {epochs: 1, batch_size: 32, lr: 0.05}
  - quantize: {calibration: 32}
"""
ONE = [sys.executable, "-m", "lianzhi"]
TWO = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--nproc_per_node",
    "2",
    "--standalone",
    "-m",
    "lianzhi",
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def start(program: list[str], *arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*program, *arguments],
        env=ENVIRONMENT,
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def kill_all(process: int) -> None:
    """SIGKILL a process and those that it started: `torchrun` gives each of them a session of its own."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    for one in [process, *map(int, children)]:
        os.kill(one, signal.SIGKILL)
    while any(Path(f"/proc/{child}/exe").exists() for child in children):
        time.sleep(0.01)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def printed(work: Path) -> str:
    """What two processes print that make the folder `two`."""
    process = start(TWO, "compress", "recipe.yaml", "-o", "two", "--json", cwd=work)
    out, errors = process.communicate()
    assert process.returncode == 0, errors[-4000:]
    assert errors.count("made-up data") == 1
    return out


def test_two_processes_print_one_report_and_its_rows_are_those_of_one(work, printed):
    process = start(ONE, "compress", "recipe.yaml", "-o", "one", "--json", cwd=work)
    out, errors = process.communicate()
    assert process.returncode == 0, errors[-4000:]
    one, two = json.loads(out), json.loads(printed)
    assert [row["step"] for row in two["rows"]] == [row["step"] for row in one["rows"]]
    for ours, theirs in zip(two["rows"], one["rows"], strict=True):
        assert (ours["samples"], ours["split"]) == (theirs["samples"], theirs["split"])
        assert abs(ours["value"] - theirs["value"]) <= 0.1
    assert two["rows"][0]["value"] == one["rows"][0]["value"]
    assert two["rows"][-1]["precision"] == one["rows"][-1]["precision"] == "int8"
    assert sorted(os.listdir(work / "two")) == sorted(os.listdir(work / "one"))
    first, second = (files.read_tensors(work / name / "model.safetensors") for name in ("one", "two"))
    assert first.keys() == second.keys()
    assert all(torch.isfinite(value).all() for value in second.values() if value.is_floating_point())


def test_killed_and_resumed_they_end_with_the_same_weights(work, printed):
    """Both are killed as soon as the work folder holds the first trace of a step."""
    killed = 0
    for trace in ("step-0", "step-1/train/last.safetensors", "step-3/train/last.safetensors", "step-4"):
        process = start(TWO, "compress", "recipe.yaml", "-o", "killed", "--resume", "--quiet", cwd=work)
        while process.poll() is None and not (work / "killed" / ".work" / trace).exists():
            time.sleep(0.01)
        if process.poll() is None:
            kill_all(process.pid)
            killed += 1
        process.communicate()
    assert killed == 4
    process = start(TWO, "compress", "recipe.yaml", "-o", "killed", "--resume", "--quiet", cwd=work)
    _, errors = process.communicate()
    assert process.returncode == 0, errors[-4000:]
    assert not [name for name in os.listdir(work / "killed") if name.startswith(".")]
    first, second = (work / name / "model.safetensors" for name in ("two", "killed"))
    assert first.read_bytes() == second.read_bytes()


def test_they_train_a_quantized_model(work):
    steps = "steps=[quantize: {method: qat, epochs: 1, calibration: 32, batch_size: 32, channels: 0.5}]"
    process = start(TWO, "compress", "recipe.yaml", "-o", "qat", "--set", steps, "--json", cwd=work)
    out, errors = process.communicate()
    assert process.returncode == 0, errors[-4000:]
    row = json.loads(out)["rows"][-1]
    assert row["precision"] == "int8"
    assert row["details"]["training"]["onnxruntime"]["steps"] == 5


def test_an_error_is_printed_once_as_json(work):
    process = start(TWO, "compress", "recipe.yaml", "-o", "new", "--set", "target=tpu", "--json", cwd=work)
    out, _ = process.communicate()
    assert process.returncode != 0
    assert json.loads(out)["exit_code"] == 2
    assert not (work / "new").exists()


def test_without_a_folder_both_write_into_the_same_one(work):
    process = start(
        TWO,
        "compress",
        "recipe.yaml",
        "--set",
        "precision=f32",
        "--set",
        "steps=[prune: {ratio: 0.5}]",
        "--quiet",
        cwd=work,
    )
    _, errors = process.communicate()
    assert process.returncode == 0, errors[-4000:]
    assert len(list((work / "out").iterdir())) == 1


SHARED = """
model: {name: lenet_300_100, num_classes: 3}
task: {name: synthetic, samples: 192, classes: 3, shape: [1, 28, 28]}
target: pytorch
measure: {batches: [1], repeats: 1, threads: 1}
steps:
  - train: {epochs: 1, batch_size: 32, lr: 0.05}
  - share_weights: {bits: 4, max_drop: 5, epochs: 1, batch_size: 32, layerwise: 1}
"""


def test_two_processes_share_weights_and_decide_alike(tmp_path):
    (tmp_path / "shared.yaml").write_text(SHARED)
    process = start(TWO, "compress", "shared.yaml", "-o", "out", cwd=tmp_path)
    try:
        _, errors = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        kill_all(process.pid)
        raise
    assert process.returncode == 0, errors[-4000:]
    details = files.read_json(tmp_path / "out" / "report.json")["rows"][-1]["details"]
    assert "before" in details["history"]
    assert max(details["bits"].values()) <= 4
