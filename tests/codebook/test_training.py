"""Masks and shared weights in the training loop: what holds, what is saved, and what a resumed run ends with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fake import FakeTask
from torch import nn

from lianzhi import train
from lianzhi.codebook.allocation import masks_for
from lianzhi.codebook.gradual import Gradual, share_at
from lianzhi.codebook.masks import held, weights_of
from lianzhi.codebook.sharing import bake, share, share_values
from lianzhi.errors import GraphError, RecipeError
from lianzhi.train.checkpoint import read

TASK = FakeTask(samples=42, shape=(2, 6, 6))


def net() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3)
    )


def options(**changes: object) -> train.TrainOptions:
    values = {"epochs": 4, "batch_size": 4, "optimizer": "adam", "lr": 1e-3, "keep": "last"}
    return train.TrainOptions(**{**values, **changes})


class Stop(Exception):
    """Stands for the death of a process at a chosen step."""


def stopping(after_step, at: int):
    """The hook, which raises at its `at`-th call, before it did anything."""
    calls = 0

    def hook(model: nn.Module) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise Stop
        after_step(model)

    return hook


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_shared_weights_train_and_resume_to_the_bit(tmp_path: Path):
    def run(folder: Path, *, at: int | None = None, resume: bool = False) -> nn.Module:
        model = net()
        share(model, 3)
        hook = stopping(lambda model: None, at) if at else None
        settings = options(save_every=1e-9, lr=1e-2)
        train.fit(model, TASK, settings, directory=folder, resume=resume, progress=False, after_step=hook)
        return model

    whole = run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "stopped", at=17)
    resumed = run(tmp_path / "stopped", resume=True)
    same(state(whole), state(resumed))
    saved = read(tmp_path / "whole" / "last.safetensors")
    assert saved is not None
    moments = saved.part("optimizer")
    assert moments["4.parametrizations.weight.original/exp_avg"].shape == (7,)
    assert max(value.numel() for value in moments.values()) <= 8
    bake(whole)
    assert torch.equal(share_values(whole[4].weight.detach(), 3), whole[4].weight)


def test_shared_training_helps_and_the_best_epoch_is_kept():
    model = net()
    share(model, 1)
    history = train.fit(model, TASK, options(keep="best", lr=1e-2, epochs=8), progress=False)
    losses = [epoch["loss"] for epoch in history.epochs]
    assert losses[-1] < losses[0]
    bake(model)
    assert len(model[4].weight.unique()) == 1


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "lamb"])
def test_masks_hold_through_the_loop(name: str):
    model = net()
    with torch.no_grad():
        for weight in weights_of(model).values():
            weight[torch.rand(weight.shape) < 0.7] = 0.0
    zeros = {key: weight == 0 for key, weight in weights_of(model).items()}
    masks = held(model)
    settings = options(optimizer=name, lr=0.01, weight_decay=0.1, clip=1.0)
    train.fit(model, TASK, settings, progress=False, after_step=masks.apply_)
    for key, weight in weights_of(model).items():
        assert torch.equal(weight == 0, zeros[key]), key


def gradual_run(
    folder: Path | None,
    *,
    at: int | None = None,
    resume: bool = False,
    feedback: bool = True,
    criterion: str = "l1",
    **changes: object,
):
    model = net()
    gradual = Gradual(
        model,
        list(weights_of(model)),
        lambda weights, share: masks_for(weights, 0.8, "global", share=share),
        updates=30,
        every=5,
        feedback=feedback,
        criterion=criterion,
    )
    hook = stopping(gradual.after_step, at) if at else gradual.after_step
    settings = options(save_every=1e-9, **changes)
    train.fit(model, TASK, settings, directory=folder, resume=resume, progress=False, after_step=hook)
    masks = gradual.finish(model)
    return model, masks


@pytest.mark.parametrize(
    "how", [{"feedback": True}, {"feedback": False}, {"feedback": False, "criterion": "hessian"}]
)
@pytest.mark.parametrize("at", [13, 30, 36])
def test_gradual_pruning_resumes_to_the_bit(tmp_path: Path, at: int, how: dict[str, object]):
    whole, masks = gradual_run(None, **how)
    with pytest.raises(Stop):
        gradual_run(tmp_path, at=at, **how)
    resumed, again = gradual_run(tmp_path, resume=True, **how)
    same(state(whole), state(resumed))
    same(masks, again)


@pytest.mark.parametrize(
    "how", [{"feedback": True}, {"feedback": False}, {"feedback": True, "criterion": "hessian"}]
)
def test_gradual_pruning_ends_with_the_ratio_and_an_ordinary_model(how: dict[str, object]):
    model, masks = gradual_run(None, **how)
    assert list(state(model)) == list(state(net()))
    weights = weights_of(model)
    total = sum(weight.numel() for weight in weights.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == total - round(0.8 * total)
    for name, weight in weights.items():
        assert not weight[~masks[name]].any()
        assert weight[masks[name]].all()


def test_removed_weights_come_back_when_they_would_grow():
    """Two weights, of which the smaller one is removed first and then driven by its gradient."""
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.5]]))
    gradual = Gradual(
        layer,
        ["weight"],
        lambda weights, share: masks_for(weights, 0.5, "layer"),
        updates=10,
        every=1,
        feedback=True,
    )
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    seen = []
    for _ in range(12):
        optimizer.zero_grad()
        layer(torch.tensor([[0.0, -2.0]])).sum().backward()
        optimizer.step()
        gradual.after_step(layer)
        seen.append((layer.weight != 0).tolist()[0])
    assert seen[0] == [True, False]
    assert seen[-1] == [False, True]
    assert gradual.finish(layer)["weight"].tolist() == [[False, True]]


def test_without_feedback_removed_weights_stay_where_they_were():
    """No gradient reaches the second weight, its momentum does not move it, and it comes back as it was."""
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.5]]))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)

    def update(first: float) -> float:
        optimizer.zero_grad()
        layer(torch.tensor([[first, -1.0]])).sum().backward()
        optimizer.step()
        return layer.weight.grad[0, 1].item()

    def masks(weights, share):
        return masks_for(weights, 0.5, "layer")

    update(0.0)
    gradual = Gradual(layer, ["weight"], masks, updates=9, every=1, feedback=False)
    gradients, values = [], []
    for _ in range(5):
        gradients.append(update(0.3))
        gradual.after_step(layer)
        values.append([round(value, 4) for value in layer.weight.tolist()[0]])
    assert gradients == [-1.0, 0.0, 0.0, 0.0, -1.0]
    assert values[:4] == [[0.97, 0.0], [0.913, 0.0], [0.8317, 0.0], [0.0, 0.79]]
    assert values[4][0] == 0.0
    assert values[4][1] > 0.79


def test_after_the_schedule_removed_weights_have_no_gradient():
    layer = nn.Linear(4, 1, bias=False)
    gradual = Gradual(
        layer, ["weight"], lambda weights, share: masks_for(weights, 0.5, "layer", share=share), updates=1
    )
    layer(torch.ones(1, 4)).sum().backward()
    assert layer.weight.grad.tolist() == [[1.0] * 4]
    gradual.after_step(layer)
    layer.weight.grad = None
    layer(torch.ones(1, 4)).sum().backward()
    assert layer.weight.grad.sum() == 2
    gradual.finish(layer)
    layer.weight.grad = None
    layer(torch.ones(1, 4)).sum().backward()
    assert layer.weight.grad.sum() == 4


@pytest.mark.parametrize("counted", [1, 2])
def test_removed_weights_are_zero_without_a_sign(counted: int):
    """-0.0 is another number, which a packed file keeps."""
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0, -1.0]]))
    gradual = Gradual(
        layer, ["weight"], lambda weights, share: masks_for(weights, 0.5, "layer"), updates=2, every=1
    )
    for _ in range(counted):
        gradual.after_step(layer)
    gradual.finish(layer)
    assert layer.weight.tolist() == [[2.0, 0.0]]
    assert not layer.weight[0, 1].signbit()


def test_schedules_and_bad_numbers():
    assert share_at(0.25) == pytest.approx(1 - 0.75**3)
    assert share_at(-1.0) == 0.0
    assert share_at(2.0, "linear") == 1.0
    for updates in (0, 2.5):
        with pytest.raises(RecipeError, match=f"updates={updates}"):
            Gradual(net(), [], lambda weights, share: {}, updates=updates)
    with pytest.raises(GraphError, match="nope: no parameters"):
        Gradual(net(), ["nope"], lambda weights, share: {}, updates=3)
