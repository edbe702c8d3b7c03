"""The method `layerwise`: its loss is that of NumPy, the right layers are compared, and a damaged model comes back."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tiny_cnn import TinyCNN
from torch import nn

import lianzhi as lz
from lianzhi import graph, train
from lianzhi.distill.methods import Logits, Setting, layerwise, registry
from lianzhi.errors import DataError, GraphError, RecipeError
from lianzhi.tasks import Batch, Task
from lianzhi.train.options import TrainOptions


@pytest.fixture(scope="module")
def task() -> Task:
    return lz.task("synthetic", samples=96, classes=4, shape=(3, 8, 8))


@pytest.fixture(scope="module")
def teacher(task: Task) -> nn.Module:
    model = TinyCNN(6, 10, 14, seed=1)
    train.fit(model, task, TrainOptions(epochs=3, batch_size=16), progress=False)
    return model.eval()


def some(task: Task, count: int = 16) -> Batch:
    return next(iter(task.batches("train", count)))


def damaged(model: nn.Module) -> nn.Module:
    """A copy whose small weights are gone."""
    student = copy.deepcopy(model)
    for parameter in student.parameters():
        if parameter.ndim > 1:
            with torch.no_grad():
                parameter.mul_(parameter.abs() > parameter.abs().flatten().median())
    return student


def steps_of(teacher: nn.Module, student: nn.Module, task: Task, **options):
    setting = Setting(teacher, student, task, TrainOptions(batch_size=16))
    (stage,) = layerwise.build(setting, layerwise.LayerwiseOptions(**options)).stages
    return stage.step


def test_the_loss_is_that_of_numpy():
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    student = damaged(teacher)
    inputs, labels = torch.randn(6, 5).double(), torch.tensor([0, 1, 2, 0, 1, 2])
    batch = Batch(inputs, labels, torch.arange(6), 6)
    squares = layerwise.mean_squares(teacher, inputs[:3], ["0", "2"])
    step = layerwise.make_step(teacher, squares, weight=5.0, temperature=2.0, alpha=0.7)
    result = step(student, batch)

    def run(model):
        first, second = (
            (layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in (model[0], model[2])
        )
        hidden = inputs.numpy() @ first[0].T + first[1]
        return hidden, np.maximum(hidden, 0) @ second[0].T + second[1]

    def log_softmax(logits):
        return logits - np.log(np.exp(logits).sum(1, keepdims=True))

    own, theirs = run(student), run(teacher)
    layers = np.mean([((a - b) ** 2).mean() / (b[:3] ** 2).mean() for a, b in zip(own, theirs, strict=True)])
    p, q = log_softmax(theirs[1] / 2), log_softmax(own[1] / 2)
    soft = 4 * (np.exp(p) * (p - q)).sum(1).mean()
    hard = -log_softmax(own[1])[np.arange(6), labels.numpy()].mean()
    wanted = {"layers": layers, "soft": soft, "hard": hard}
    assert {name: result["terms"][name].item() for name in wanted} == pytest.approx(wanted, rel=1e-5)
    assert result["loss"].item() == pytest.approx(5 * layers + 0.7 * soft + 0.3 * hard, rel=1e-5)


def test_a_copy_of_the_teacher_has_nothing_to_learn(task, teacher):
    result = steps_of(teacher, copy.deepcopy(teacher), task, alpha=1.0)(copy.deepcopy(teacher), some(task))
    assert result["loss"].item() == 0
    assert sorted(result["terms"]) == ["layers", "layers_weighted", "soft", "soft_weighted"]


def test_a_damaged_model_comes_back_inside_and_the_teacher_stays(task, teacher):
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student = damaged(teacher)
    step = steps_of(teacher, student, task, weight=3.0)
    history = train.fit(
        student, task, TrainOptions(epochs=4, batch_size=16, lr=0.01), step=step, progress=False
    )
    apart = [epoch["terms"]["layers"] for epoch in history.epochs]
    assert apart[-1] < apart[0] / 2
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert not any(module._forward_hooks for module in [*teacher.modules(), *student.modules()])


def test_which_layers_are_compared_when_none_is_named(task, teacher):
    pytest.importorskip("transformers")
    import small_transformers as small

    inputs = task.example_inputs
    assert layerwise.looks(teacher, inputs) == ["stages.0", "stages.1", "stages.2"]
    encoder, words = small.bert(3), small.inputs()
    assert layerwise.looks(encoder, words) == [
        "bert.embeddings", *(f"bert.encoder.layer.{index}" for index in range(3))
    ]  # fmt: skip
    lenet, digits = lz.model("lenet5"), torch.zeros(1, 1, 28, 28)
    assert layerwise.looks(lenet, digits) == ["conv1", "conv2", "fc1", "fc2"]
    assert layerwise.looks(lenet, digits, ["fc*"]) == ["fc1", "fc2"]
    assert len(layerwise.looks(graph.capture(lenet, digits).module, digits)) == 4


def test_dropout_is_off_while_it_learns_and_on_again_after_it():
    teacher = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 2)).eval()
    student, inputs = copy.deepcopy(teacher).train(), torch.randn(4, 6)
    batch = Batch(inputs, torch.tensor([0, 1, 0, 1]), torch.arange(4), 4)
    squares = layerwise.mean_squares(teacher, inputs, ["0", "2"])
    quiet, noisy = (layerwise.make_step(teacher, squares, alpha=1.0, dropout=on) for on in (False, True))
    assert quiet(student, batch)["loss"].item() == pytest.approx(0, abs=1e-6)
    assert (student[1].p, student[1].training) == (0.5, True)
    assert noisy(student, batch)["loss"].item() > 0.01
    with pytest.raises(RuntimeError):
        quiet(student, Batch(inputs[:, :3], batch.labels, batch.ids, 4))
    assert student[1].p == 0.5


class Twice(nn.Module):
    """A layer that runs twice, and one that runs once."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.body(x)))


def test_what_runs_twice_is_passed_over_unless_it_is_named():
    model, inputs = Twice(), torch.randn(3, 4)
    assert layerwise.looks(model, inputs) == ["head"]
    with pytest.raises(GraphError, match="'body' ran 2 times"):
        layerwise.mean_squares(model, inputs, layerwise.looks(model, inputs, ["body"]))


def test_a_layer_that_gives_only_zeros_is_no_division_by_zero():
    teacher = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        teacher[0].bias.fill_(-100.0)
    inputs = torch.randn(4, 3)
    step = layerwise.make_step(teacher, layerwise.mean_squares(teacher, inputs, ["1"]))
    result = step(copy.deepcopy(teacher), Batch(inputs, torch.tensor([0, 1, 0, 1]), torch.arange(4), 4))
    assert torch.isfinite(result["loss"])


def test_what_does_not_go_together_is_said(task, teacher):
    with pytest.raises(RecipeError, match="the same model"):
        steps_of(teacher, teacher, task)
    with pytest.raises(RecipeError, match="the same model"):
        layerwise.make_step(teacher, {"head": 1.0})(teacher, some(task))
    with pytest.raises(DataError, match=r"gives \[1, 4, 8, 8\], the teacher's \[1, 6, 8, 8\]; use kd"):
        steps_of(teacher, TinyCNN(4, 10, 14), task)
    with pytest.raises(GraphError, match="no layer is named 'fc9'"):
        steps_of(teacher, damaged(teacher), task, layers=["fc9"])
    with pytest.raises(RecipeError, match="weight"):
        layerwise.make_step(teacher, {"head": 1.0}, weight=0.0)
    kept = Setting(teacher, damaged(teacher), task, source=Logits(teacher, lambda: None))
    with pytest.raises(RecipeError, match="cache: false"):
        layerwise.build(kept, layerwise.LayerwiseOptions())
    assert registry.get("layerwise").build is layerwise.build
