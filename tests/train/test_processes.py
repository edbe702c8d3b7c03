"""Two processes against one: gradients, BatchNorm statistics, weights, metric, errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import scenarios
import torch
from safetensors.torch import load_file
from torch import Tensor

from lianzhi import processes
from lianzhi.train import gradients


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of results of all scenarios in two processes."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, scenarios.__file__, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def close(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.allclose(tensor, other[name], rtol=tolerance, atol=tolerance), name


@pytest.mark.parametrize("name", scenarios.GRADIENTS)
def test_gradients_and_statistics_agree(two: Path, name: str) -> None:
    options = scenarios.GRADIENTS[name]
    expected = scenarios.gradients(**options)
    assert any(key.startswith("gradient/0/") for key in expected)
    assert not any("unused" in key for key in expected if key.startswith("gradient"))
    for rank in (0, 1):
        found = load_file(two / f"{name}-{rank}.safetensors")
        close(found, expected, 1e-9 if options.get("double", True) else 1e-5)


def test_processes_end_with_the_same_weights_and_metric(two: Path, tmp_path: Path) -> None:
    first, second = (load_file(two / f"run-{rank}.safetensors") for rank in (0, 1))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    close(first, scenarios.whole_run(tmp_path), 1e-3)


def test_masks_by_what_removing_costs_are_those_of_one_process(two: Path) -> None:
    expected = scenarios.pruned()
    assert sum(int(mask.sum()) for mask in expected.values()) < sum(
        mask.numel() for mask in expected.values()
    )
    for rank in (0, 1):
        found = load_file(two / f"pruned-{rank}.safetensors")
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_finished_run_is_reopened(two: Path) -> None:
    for rank in (0, 1):
        for name, tensor in load_file(two / f"run-{rank}.safetensors").items():
            assert torch.equal(tensor, load_file(two / f"reopened-{rank}.safetensors")[name]), name


def test_only_the_leader_writes_whole_files(two: Path) -> None:
    assert sorted(path.name for path in (two / "run").iterdir()) == ["best.safetensors", "last.safetensors"]


def test_a_nan_that_one_process_sees_stops_both(two: Path) -> None:
    messages = [bytes(load_file(two / f"poisoned-{rank}.safetensors")["message"].tolist()) for rank in (0, 1)]
    assert messages[0] == messages[1]
    assert b"the loss is nan at epoch 1, step" in messages[0]


def test_the_precision_is_the_leaders(two: Path) -> None:
    """Each would choose by its own clock, and the two might not agree."""
    for rank in (0, 1):
        assert not load_file(two / f"chosen-{rank}.safetensors")["bf16"].any()


def test_one_process_needs_no_group() -> None:
    assert processes.start_processes() == (0, 1)
    assert processes.from_leader("value") == "value"
    assert processes.gathered(3) == [3]
    processes.barrier()


def test_buckets_hold_one_type_and_a_limited_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "BUCKET", 5)
    tensors = [torch.zeros(3), torch.zeros(2), torch.zeros(1), torch.zeros(9), torch.zeros(1).double()]
    sizes = [[item.numel() for item in bucket] for bucket in gradients._buckets(tensors)]
    assert sizes == [[3, 2], [1], [9], [1]]
