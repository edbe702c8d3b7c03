"""Optimizers against by-hand computations."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from fake import FakeTask
from torch import nn

from lianzhi import train
from lianzhi.errors import TrainingError
from lianzhi.train import TrainOptions, optimizers
from lianzhi.train.lamb import Lamb

NAMES = ("sgd", "adam", "adamw", "rmsprop", "lamb")


def lamb_by_hand(
    weight: np.ndarray, gradients: list[np.ndarray], lr: float, decay: float, eps: float = 1e-6
) -> np.ndarray:
    """Algorithm 2 of 1904.00962, in float64."""
    mean, square = np.zeros_like(weight), np.zeros_like(weight)
    for age, gradient in enumerate(gradients, 1):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        update = (mean / (1 - 0.9**age)) / (np.sqrt(square / (1 - 0.999**age)) + eps) + decay * weight
        size, length = np.linalg.norm(weight), np.linalg.norm(update)
        weight = weight - lr * (size / length if size > 0 and length > 0 else 1.0) * update
    return weight


@pytest.mark.parametrize("start", ["random", "zero"])
def test_lamb_is_the_papers_algorithm(start: str) -> None:
    generator = np.random.default_rng(0)
    shapes = [(4, 3), (5,), (2, 3, 2, 2)]
    weights = [generator.normal(size=shape) * (start == "random") for shape in shapes]
    gradients = [[generator.normal(size=shape) for _ in range(4)] for shape in shapes]
    parameters = [nn.Parameter(torch.tensor(weight)) for weight in weights]
    optimizer = Lamb(parameters, lr=0.02, weight_decay=0.1)
    for step in range(4):
        for parameter, series in zip(parameters, gradients, strict=True):
            parameter.grad = torch.tensor(series[step])
        optimizer.step()
    for parameter, weight, series in zip(parameters, weights, gradients, strict=True):
        expected = lamb_by_hand(weight, series, lr=0.02, decay=0.1)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-6)


def test_lamb_counts_each_parameters_own_steps() -> None:
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = Lamb([first, second], lr=0.1)
    first.grad = torch.ones(2)
    optimizer.step()
    second.grad = torch.ones(2)
    optimizer.step()
    assert [int(optimizer.state[item]["step"]) for item in (first, second)] == [2, 1]


def test_adadelta_is_the_papers_algorithm() -> None:
    layer = nn.Linear(3, 2, bias=False)
    weight = layer.weight.detach().double().numpy().copy()
    options = TrainOptions(optimizer="adadelta", rho=0.9, weight_decay=0.01)
    optimizer = optimizers.optimizer(layer, options)
    squares, moves, tiny = np.zeros_like(weight), np.zeros_like(weight), 1e-6
    for step in range(5):
        gradient = np.full((2, 3), 0.5 + step)
        layer.weight.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.step()
        gradient = gradient + 0.01 * weight
        squares = 0.9 * squares + 0.1 * gradient**2
        move = np.sqrt(moves + tiny) / np.sqrt(squares + tiny) * gradient
        moves = 0.9 * moves + 0.1 * move**2
        weight -= options.lr * move
    assert options.lr == 1.0
    np.testing.assert_allclose(layer.weight.detach().numpy(), weight, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_lowers_a_loss(name: str) -> None:
    weight = nn.Linear(3, 2)
    inputs = torch.randn(16, 3)
    optimizer = optimizers.optimizer(weight, TrainOptions(optimizer=name, lr=0.01, momentum=0.0))
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = weight(inputs).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", [*NAMES, "adadelta"])
def test_undecayed_vectors_stand_still_without_a_gradient(name: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    options = TrainOptions(optimizer=name, lr=0.1, weight_decay=0.5, decay_all=False)
    optimizer = optimizers.optimizer(model, options)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = model.state_dict()
    assert torch.equal(after["0.bias"], before["0.bias"])
    assert torch.equal(after["1.weight"], before["1.weight"])
    assert not torch.equal(after["0.weight"], before["0.weight"])


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_fused_kernels_agree_with_plain_ones_in_channels_last(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, 3, 3, generator=generator)
    ours = nn.Conv2d(3, 4, 3, bias=False).to(memory_format=torch.channels_last)
    plain = nn.Parameter(weight.clone())
    ours.weight.data.copy_(weight)
    options = TrainOptions(optimizer=name, lr=0.1, nesterov=False)
    fused = optimizers.optimizer(ours, options)
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    extra = {"momentum": 0.9} if name == "sgd" else {}
    peer = kind([plain], lr=0.1, weight_decay=options.weight_decay, **extra)
    images = torch.randn(2, 3, 5, 5, generator=generator)
    for _ in range(3):
        ours.zero_grad()
        ours(images.contiguous(memory_format=torch.channels_last)).square().mean().backward()
        optimizers.require_same_layout(ours)
        plain.grad = None
        nn.functional.conv2d(images, plain).square().mean().backward()
        fused.step()
        peer.step()
    torch.testing.assert_close(ours.weight.contiguous(), plain.detach(), rtol=1e-3, atol=1e-5)


def test_a_gradient_laid_out_otherwise_is_refused() -> None:
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    model.weight.grad = torch.zeros(4, 3, 3, 3)
    with pytest.raises(TrainingError, match="gradient of 'weight' has strides"):
        optimizers.require_same_layout(model)


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(TrainingError, match="no parameter that requires a gradient"):
        optimizers.optimizer(nn.Linear(2, 2).requires_grad_(False), TrainOptions())


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsprop", "lamb"])
def test_averages_whose_gradients_are_gone_do_not_become_denormal(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of removed weights: 0.9 to the power of 1,000 is a denormal number, and the weights are the same without it."""

    def trained() -> tuple[nn.Module, dict[str, torch.Tensor]]:
        model, made, seen = nn.Linear(6, 3), [], itertools.count()
        nn.init.constant_(model.weight, 0.5)

        def step(model: nn.Module, batch: Any) -> dict[str, Any]:
            rows = model.weight if next(seen) == 0 else model.weight[:1]  # type: ignore[index]
            return {"loss": rows.square().sum()}

        def kept(model: nn.Module, options: train.TrainOptions) -> torch.optim.Optimizer:
            made.append(real(model, options))
            return made[0]

        monkeypatch.setattr(optimizers, "optimizer", kept)
        options = train.TrainOptions(
            epochs=1, batch_size=10, optimizer=name, lr=1e-3, weight_decay=0.0, keep="last"
        )
        train.fit(model, FakeTask(samples=11_000), options, step=step, progress=False)
        return model, made[0].state[model.weight]

    real = optimizers.optimizer
    model, state = trained()
    for value in state.values():
        if isinstance(value, torch.Tensor):
            assert not ((value != 0) & (value.abs() < torch.finfo(torch.float32).tiny)).any()
    monkeypatch.setattr(optimizers, "forget_small", lambda optimizer: None)
    other, state = trained()
    assert torch.equal(model.weight, other.weight)
    average = state["momentum_buffer" if name in ("sgd", "rmsprop") else "exp_avg"]
    assert ((average != 0) & (average.abs() < torch.finfo(torch.float32).tiny)).any()
