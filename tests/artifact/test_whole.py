"""The folder of an artifact is whole or absent, whatever stops the writing; and keeps what is not ours."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from lianzhi import artifact, files
from lianzhi.errors import ArtifactError


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    files.write_text(tmp_path / "a" / "mine.txt", "x") if files.make_folder(tmp_path / "a") else None
    with pytest.raises(ArtifactError, match=r"not empty \(it holds mine\.txt\); nothing was written"):
        artifact.save(nn.Linear(4, 2), tmp_path / "a", example_inputs=torch.zeros(1, 4))
    assert os.listdir(tmp_path / "a") == ["mine.txt"]
    artifact.save(
        nn.Linear(4, 2), tmp_path / "a", example_inputs=torch.zeros(1, 4), labels=["a", "b"], overwrite=True
    )
    artifact.save(nn.Linear(4, 3), tmp_path / "a", example_inputs=torch.zeros(1, 4), overwrite=True)
    assert sorted(os.listdir(tmp_path / "a")) == ["architecture.json", "mine.txt", "model.safetensors"]
    assert artifact.load(tmp_path / "a")(torch.zeros(1, 4)).shape == (1, 3)
    assert os.listdir(tmp_path) == ["a"]


FULL = """
import resource, sys, torch, os
from torch import nn
import lianzhi as lz
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    lz.save(nn.Linear(100, 100), sys.argv[1] + "/a", example_inputs=torch.zeros(1, 100))
except lz.ArtifactError as error:
    print(error)
print(os.listdir(sys.argv[1]))
"""


def test_a_full_disk_leaves_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "the disk is full; free some space" in done.stdout.splitlines()[0]
    assert done.stdout.splitlines()[-1] == "[]"


KILLED = """
import os, signal, sys, torch
from torch import nn
from lianzhi import artifact
folder, model, x = sys.argv[1], nn.Linear(4, 2), torch.zeros(1, 4)
artifact.save(model, folder + "/warm", example_inputs=x)
artifact.save(model, folder + "/over", example_inputs=x)
for call in range(100):
    child = os.fork()
    if child == 0:
        left = [call]
        def counted(function):
            def wrapped(*args, **kwargs):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **kwargs)
            return wrapped
        for name in ("fsync", "replace", "rename", "mkdir"):
            setattr(os, name, counted(getattr(os, name)))
        new = nn.Linear(4, 2)
        artifact.save(new, f"{folder}/new{call}", example_inputs=x)
        artifact.save(new, f"{folder}/over", example_inputs=x, overwrite=True)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        print("calls", call)
        break
    path = f"{folder}/new{call}"
    if os.path.exists(path):
        artifact.load(path)
    if os.path.exists(folder + "/over"):
        artifact.load(folder + "/over")
    else:
        (before,) = [name for name in os.listdir(folder) if name.startswith(".over") and name.endswith(".before")]
        artifact.load(f"{folder}/{before}")
        os.rename(f"{folder}/{before}", folder + "/over")
"""


def test_killed_at_any_call_leaves_old_or_new(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(KILLED), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    calls = int(done.stdout.split()[1])
    assert calls > 15
    assert artifact.load(tmp_path / "over")
