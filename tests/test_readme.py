"""The README's Python example runs as it is printed, on a small task of made-up data."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lianzhi as lz

ROOT = Path(__file__).resolve().parent.parent
# what needs data, weights or minutes, and what stands for it here
SMALL = {
    'lz.task("cifar10", data="data/cifar10")': 'lz.task("synthetic", samples=96, classes=3, shape=[3, 16, 16])',
    'lz.model("resnet20", weights="resnet20.safetensors")': 'lz.model("resnet20", num_classes=3)',
    "epochs=5": "epochs=1",
    "epochs=10": "epochs=1",
    'target="auto",': 'target="auto", measure=lz.Measure(batches=(1,), repeats=2),',
}


def example(name: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text("utf-8"), re.DOTALL)
    return str(code)


def without_comments(code: str) -> str:
    return re.sub(r" *#.*", "", code)


def test_both_languages_show_the_same_example():
    assert without_comments(example("README.md")) == without_comments(example("README.zh-CN.md"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_example_runs(tmp_path):
    code = example("README.md")
    for shown, small in SMALL.items():
        assert code.count(shown) == 1
        code = code.replace(shown, small)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["rows"]
    assert [row["step"] for row in rows] == ["original", "sparsify", "prune", "distill", "quantize"]
    assert rows[-1]["parameters"] < rows[0]["parameters"]
    for row in rows:
        assert row["step"] in done.stdout
    assert sum(value.numel() for value in lz.load(tmp_path / "out").parameters()) < rows[0]["parameters"]
