"""Checkpoints: what goes in comes out, and a write that fails leaves the earlier one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from lianzhi.errors import ArtifactError
from lianzhi.train import checkpoint
from lianzhi.train.checkpoint import Checkpoint, read, write


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5)
        self.head.weight = self.embed.weight
        self.norm = nn.BatchNorm1d(3)


def test_tensors_and_values_come_back(tmp_path: Path) -> None:
    tensors = {
        "model/a": torch.randn(2, 3),
        "model/half": torch.randn(3).bfloat16(),
        "model/view": torch.randn(4, 4)[1:, ::2],
        "model/count": torch.tensor(3),
        "optimizer/a/exp_avg": torch.randn(2, 3, 2, 2).to(memory_format=torch.channels_last),
    }
    write(tmp_path / "last.safetensors", Checkpoint(tensors, {"position": {"epoch": 3, "loss": 0.1 + 0.2}}))
    found = read(tmp_path / "last.safetensors")
    assert found is not None
    assert found.values == {"position": {"epoch": 3, "loss": 0.1 + 0.2}}
    assert found.part("model").keys() == {"a", "half", "view", "count"}
    for name, tensor in tensors.items():
        assert torch.equal(found.tensors[name], tensor), name


def test_files_have_ordinary_permissions(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", Checkpoint({"a": torch.zeros(1)}))
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_tied_weights_are_written_once_and_stay_tied() -> None:
    model, other = Tied(), Tied()
    tensors = checkpoint.model_tensors(model)
    assert "head.weight" not in tensors
    checkpoint.load_model(other, {name: tensor.clone() for name, tensor in tensors.items()}, "test")
    assert other.head.weight is other.embed.weight
    assert torch.equal(other.head.weight, model.head.weight)


def test_another_models_checkpoint_is_refused() -> None:
    tensors = checkpoint.model_tensors(nn.Linear(2, 3))
    with pytest.raises(ArtifactError, match=r"'weight' has shape \(3, 2\) in the checkpoint and \(3, 4\)"):
        checkpoint.load_model(nn.Linear(4, 3), tensors, "here")
    with pytest.raises(ArtifactError, match=r"missing \[\], unknown \['bias'\]"):
        checkpoint.load_model(nn.Linear(2, 3, bias=False), tensors, "here")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.safetensors"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="remove it to begin again"):
        read(path)


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    write(tmp_path / "last.safetensors", Checkpoint())
    monkeypatch.undo()
    with pytest.raises(ArtifactError, match="format 99, this version reads 1"):
        read(tmp_path / "last.safetensors")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.getuid() != 0:
        pytest.skip("needs the right to mount a small file system")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("this machine does not let tests mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_keeps_the_last_good_checkpoint(small_disk: Path) -> None:
    path = small_disk / "last.safetensors"
    write(path, Checkpoint({"a": torch.ones(40_000)}))
    with pytest.raises(ArtifactError, match="could not be written") as caught:
        write(path, Checkpoint({"a": torch.zeros(40_000)}))
    assert "the one before it is untouched. Free disk space" in str(caught.value)
    found = read(path)
    assert found is not None
    assert found.tensors["a"].sum() == 40_000
    assert [item.name for item in small_disk.iterdir()] == ["last.safetensors"]


LIMITED = """
import resource, sys, torch
from pathlib import Path
from lianzhi.errors import ArtifactError
from lianzhi.train.checkpoint import Checkpoint, read, write
path = Path(sys.argv[1])
write(path, Checkpoint({"a": torch.ones(10)}))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    write(path, Checkpoint({"a": torch.zeros(40_000)}))
except ArtifactError as error:
    assert "untouched" in str(error), error
else:
    raise SystemExit("written over the limit")
assert read(path).tensors["a"].sum() == 10
assert [item.name for item in path.parent.iterdir()] == [path.name]
"""


def test_a_file_size_limit_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "last.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
