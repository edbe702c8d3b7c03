"""The step `distill` by features: a teacher that was loaded without its code, and a folder that holds the student alone."""

from __future__ import annotations

import pytest
import torch
from tiny_cnn import TinyCNN

import lianzhi as lz
from lianzhi import train
from lianzhi.errors import GraphError

MEASURE = lz.Measure(batches=(1,), repeats=2, threads=1)
FAST = {"epochs": 1, "batch_size": 32, "lr": 0.01}


@pytest.fixture(scope="module")
def task():
    return lz.task("synthetic", samples=96, classes=4, shape=(3, 8, 8))


@pytest.fixture(scope="module")
def teacher(task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "saved"
    model = TinyCNN(6, 10, 14, seed=1)
    train.fit(model, task, train.TrainOptions(epochs=1, batch_size=32), progress=False)
    lz.save(model.eval(), folder, example_inputs=task.example_inputs)
    return str(folder)


def test_steps_by_features_leave_the_student_alone(task, teacher, tmp_path):
    student = TinyCNN(4, 6, 8, seed=2)
    steps = [
        lz.Distill(method="review_kd", teacher=teacher, options={"width": 8}, **FAST),
        lz.Distill(method="crd", teacher=teacher, options={"negatives": 16, "size": 8}, **FAST),
    ]
    result = lz.compress(
        student, task, steps, output=tmp_path / "out", target="pytorch", measure=MEASURE, progress=False
    )
    rows = result.report.rows
    assert [row["parameters"] for row in rows[1:]] == [lz.measure.parameters(student)] * 2
    for row, name in zip(rows[1:], ("review_kd", "crd"), strict=True):
        assert {name, f"{name}_weighted", "hard"} <= set(row["details"]["history"]["epochs"][0]["terms"])
    found = lz.load(tmp_path / "out").state_dict()
    assert found.keys() == student.state_dict().keys()
    assert not torch.equal(found["linear.weight"], student.linear.weight)


def test_layers_that_are_not_there_are_named_before_anything_is_trained(task, teacher, tmp_path):
    step = lz.Distill(method="rkd", teacher=teacher, options={"student_layers": ["nowhere"]}, **FAST)
    with pytest.raises(GraphError, match="no module 'nowhere'"):
        lz.compress(TinyCNN(4, 6, 8), task, [step], output=tmp_path / "out", target="pytorch", progress=False)
    assert not (tmp_path / "out").exists()
