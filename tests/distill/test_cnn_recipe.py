"""The ready recipe of CNNs, run at tiny size, and with every method that its comment names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lianzhi as lz
from lianzhi import distill, jobs, pipeline

RECIPE = Path(__file__).parents[2] / "recipes" / "cifar10-resnet20-distill.yaml"
SMALL = [
    *(
        "model.weights=null",
        "target=onnxruntime",
        "precision=f32",
        "measure.batches=[1]",
        "measure.repeats=1",
    ),
    *("steps.0.max_steps=1", "steps.0.batch_size=8", "steps.0.precision=f32"),
    *("task={name: synthetic, samples: 64, classes: 10, shape: [3, 32, 32]}",),
]
NAMED = re.findall(r"\w+", re.search(r"features \((.*?)\)", RECIPE.read_text())[1])  # type: ignore[index]


def test_the_methods_that_are_named():
    assert len(NAMED) == 8
    assert {"fitnet", "crd", "review_kd"} < set(NAMED)


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path))
    return lambda *other: jobs.prepare(str(RECIPE), overrides=[*SMALL, *other])


@pytest.mark.parametrize("method", ["dist", *NAMED])
def test_another_method_takes_its_place(method, prepared):
    job = prepared(f"steps.0.method={method}", "steps.0.options={}")
    assert job.recipe.steps[0].method == method
    entry = distill.methods.registry.get(method)
    setting = distill.methods.Setting(job.model, lz.model("resnet20"), job.task)
    assert entry.build(setting, entry.config()).stages


def test_it_distils(prepared, tmp_path):
    job = prepared()
    result = pipeline.run(job.recipe, job.model, job.task, output=tmp_path / "out", progress=False)
    assert [row["step"] for row in result.report.rows] == ["original", "distill"]
    assert lz.measure.parameters(result.model) == lz.measure.parameters(lz.model("resnet20"))
