"""The examples run as they stand: scripts in a process of their own, notebooks cell by cell; and each is on the lists."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lianzhi

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SOURCE = str(Path(lianzhi.__file__).parents[1])
# what each says when it has worked; a group is an accuracy in percent, and above chance
SAYS = {
    "prune_your_model.py": r"loaded again, the same outputs: True",
    "distill_vision.py": r"distill +(\d+\.\d)",
    "quantize_for_a_runtime.py": r"nothing keeps ONNX Runtime from running it fast[\s\S]*int8, ONNX Runtime: \d",
    "deep_compression.py": r"of 400,000 left, with 16 values\n[^\n]*\(1, 10\)",
    "text_from_a_table.py": r"quantize +(\d+\.\d)",
    "vision.ipynb": r"accuracy (\d+\.\d)%\n(?:int8|float)",
    "text.ipynb": r"accuracy (\d+\.\d)% with half of the heads[\s\S]*\n\[\]\n",
}
CHANCE = {"distill_vision.py": 25.0}


def code_of(notebook: Path) -> str:
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code"), "clear the outputs"
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def test_every_example_is_listed_and_run():
    there = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")}
    assert there == set(SAYS)
    for page in ("README.md", "README.zh-CN.md"):
        assert set(re.findall(r"\]\((\w+\.(?:py|ipynb))\)", (EXAMPLES / page).read_text("utf-8"))) == there


@pytest.mark.slow
@pytest.mark.parametrize("name", SAYS)
def test_it_runs(name, tmp_path):
    path = EXAMPLES / name
    what = ["-c", code_of(path)] if path.suffix == ".ipynb" else [str(path), str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, *what],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": SOURCE,
            "OMP_NUM_THREADS": "1",
            "LIANZHI_CACHE": str(tmp_path / "cache"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    said = re.search(SAYS[name], done.stdout)
    assert said, done.stdout
    for accuracy in said.groups():
        assert float(accuracy) > CHANCE.get(name, 50.0) + 15
