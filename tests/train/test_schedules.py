"""Schedules against their closed forms, and the way options choose them."""

from __future__ import annotations

import math

import pytest

from lianzhi.errors import RecipeError
from lianzhi.train import TrainOptions, schedules


def curve(total: int = 100, epoch_steps: int = 10, **options: object) -> list[float]:
    return [schedules.factor(step, total, epoch_steps, TrainOptions(**options)) for step in range(total)]


def test_cosine_is_half_a_cosine_after_the_warm_up() -> None:
    values = curve(schedule="cosine", warmup=0.2)
    assert values[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert values[20:] == pytest.approx([0.5 * (1 + math.cos(math.pi * step / 80)) for step in range(80)])


def test_cosine_ends_at_its_floor() -> None:
    assert schedules.cosine(100, 100, final=0.1) == pytest.approx(0.1)
    assert schedules.cosine(300, 100, final=0.1) == pytest.approx(0.1)


def test_step_falls_at_shares_and_at_epochs() -> None:
    values = curve(schedule="step", milestones=(0.5, 8), gamma=0.5)
    assert values == pytest.approx([1.0] * 50 + [0.5] * 30 + [0.25] * 20)


def test_polynomial() -> None:
    assert curve(schedule="polynomial", power=2, final=0.2)[25] == pytest.approx(0.2 + 0.8 * 0.75**2)


def test_exponential_counts_epochs() -> None:
    assert curve(schedule="exponential", gamma=0.9)[50] == pytest.approx(0.9**5)


def test_constant_with_warm_up_in_epochs() -> None:
    values = curve(schedule="constant", warmup=2)
    assert values[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert values[20:] == [1.0] * 80


@pytest.mark.parametrize("schedule", ["cosine", "step", "polynomial", "exponential", "constant"])
def test_every_schedule_survives_a_run_of_one_step(schedule: str) -> None:
    assert 0 < schedules.factor(0, 1, 1, TrainOptions(schedule=schedule, warmup=5)) <= 1
    assert schedules.factor(0, 1, 1, TrainOptions(schedule=schedule)) == 1.0


def test_the_learning_rate_defaults_to_the_optimizers_own() -> None:
    assert TrainOptions(optimizer="adam").lr == 1e-3
    assert TrainOptions(optimizer="adam", lr=0.5).to_dict()["lr"] == 0.5
    with pytest.raises(RecipeError, match="did you mean 'epochs'"):
        TrainOptions(epoch=3)
