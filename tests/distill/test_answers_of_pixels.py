"""Models that answer for every pixel, (batch, classes, height, width): no loss takes the width for classes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import lianzhi as lz
from lianzhi.distill.methods import Setting, registry
from lianzhi.errors import DataError

IMAGES, CLASSES = torch.zeros(4, 3, 8, 12), torch.zeros(4, 8, 12, dtype=torch.long)
MESSAGE = r"one answer a pixel"


def task() -> lz.Task:
    part = [(IMAGES, CLASSES)]
    accuracy = {"pixels": lambda outputs, labels: (outputs.argmax(1) == labels).float().mean()}
    return lz.Task(train=part, validation=part, loss=functional.cross_entropy, metrics=accuracy)


def models() -> tuple[nn.Module, nn.Module]:
    return nn.Sequential(nn.Conv2d(3, 5, 3, padding=1)), nn.Sequential(nn.Conv2d(3, 5, 1))


def test_kd_is_refused_before_anything_is_trained(tmp_path):
    teacher, _ = models()
    with pytest.raises(DataError, match=MESSAGE):
        lz.compress(teacher, task(), [lz.Distill(method="kd")], output=tmp_path / "out", target="pytorch")
    assert not (tmp_path / "out").exists()


def test_a_step_by_hand_refuses_them_too():
    given = Setting(*models(), task())
    entry = registry.get("kd")
    (stage,) = entry.build(given, entry.config()).stages
    with pytest.raises(DataError, match=MESSAGE):
        stage.step(given.student, next(iter(given.task.batches("train", 4))))


def test_features_alone_are_compared_and_the_soft_part_is_refused():
    given = Setting(*models(), task())
    entry = registry.get("fitnet")
    names = {"student_layers": ["0"], "teacher_layers": ["0"]}
    (stage,) = entry.build(given, entry.config(**names)).stages
    batch = next(iter(given.task.batches("train", 4)))
    assert stage.step(stage.model or given.student, batch)["loss"].isfinite()
    with pytest.raises(DataError, match=MESSAGE):
        entry.build(given, entry.config(**names, soft=1.0))
