"""The command line as a process of its own: terminals, pipes, and ``python -m``."""

import os
import subprocess
import sys

import pytest


def run(arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "lianzhi", *arguments], capture_output=True, text=True, check=False, **options
    )


def test_a_terminal_of_another_encoding():
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    done = run(["--help"], env=environment, encoding="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u70bc" in done.stdout


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_output_that_nobody_reads(more):
    command = f"{sys.executable} -m lianzhi list models {' '.join(more)} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_python_m_lianzhi():
    done = subprocess.run(
        [sys.executable, "-m", "lianzhi", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("lianzhi ")
