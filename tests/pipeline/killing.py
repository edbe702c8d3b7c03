"""Runs of the command line that are killed at a chosen rename, and what is compared afterwards."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

# SIGKILL in place of the n-th call that renames or removes: every file that becomes final is such a moment.
KILLER = """
import os, shutil, signal, sys
left = int(sys.argv.pop(1))
def deadly(function):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call
os.replace, shutil.rmtree = deadly(os.replace), deadly(shutil.rmtree)
from lianzhi.cli import main
code = main(sys.argv[1:])
print("calls", -left)
sys.exit(code)
"""


def run_small(recipe: Path, out: Path, kill_at: int) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", KILLER, str(kill_at), "compress", str(recipe), "-o", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command += ["--resume", "--quiet"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def summary(out: Path) -> tuple:
    """What does not depend on the clock: the weights, and the report without its times."""
    report = json.loads((out / "report.json").read_text())
    rows = [
        (row["step"], row["value"], row["parameters"], row["macs"], row["samples"]) for row in report["rows"]
    ]
    return weights(out), rows, report["layers"], report["notes"]


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
