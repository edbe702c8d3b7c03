"""The method `layerwise`: its loss is that of NumPy, the right layers are compared, and a damaged model comes back."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tiny_cnn import TinyCNN, images, trained
from torch import nn

import lianzhi as lz
from lianzhi import graph, train
from lianzhi.distill import losses
from lianzhi.distill.methods import Logits, Setting, layerwise, registry
from lianzhi.errors import DataError, GraphError, RecipeError
from lianzhi.tasks import Batch, Task
from lianzhi.train.options import TrainOptions


@pytest.fixture(scope="module")
def task() -> Task:
    return images()


@pytest.fixture(scope="module")
def teacher(task: Task) -> nn.Module:
    return trained(task)


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


def test_a_layer_of_zeros_is_left_out_and_refused_where_it_is_named(task):
    teacher = TinyCNN(6, 10, 14).eval()
    teacher.stages[1][0].norm.bias.data.fill_(-1e6)
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student.stages[1][0].norm.bias.fill_(1.0)
    result = steps_of(teacher, student, task)(student, some(task))
    assert torch.isfinite(result["loss"])
    assert result["loss"] < 1e4
    with pytest.raises(DataError, match=r"'stages\.1' gives nothing but zeros; leave it out"):
        steps_of(teacher, student, task, layers=["stages.1"])
    teacher.stages[0][0].norm.bias.data.fill_(float("nan"))
    with pytest.raises(DataError, match=r"'stages\.0' gives NaN or infinite values"):
        steps_of(teacher, student, task)


def test_options_and_the_task_s_loss_reach_the_step(task, teacher):
    student, batch = damaged(teacher).eval(), some(task)
    options = {"weight": 3.0, "temperature": 2.0, "alpha": 0.25, "dropout": True}
    setting = Setting(teacher, student, task, TrainOptions(batch_size=16, label_smoothing=0.2))
    (stage,) = layerwise.build(setting, layerwise.LayerwiseOptions(**options)).stages
    found = stage.step(student, batch)
    names = layerwise.looks(teacher, task.example_inputs)
    squares = layerwise.mean_squares(teacher, some(task, 16).inputs, names)
    wanted = layerwise.make_step(teacher, squares, loss=setting.loss, **options)(student, batch)
    assert found["loss"].item() == pytest.approx(wanted["loss"].item(), rel=1e-6)
    terms = {name: value.item() for name, value in found["terms"].items()}
    assert terms["layers_weighted"] == pytest.approx(3 * terms["layers"])
    assert terms["soft_weighted"] == pytest.approx(0.25 * terms["soft"])
    logits, wanted_logits = student(batch.inputs), teacher(batch.inputs)
    assert terms["soft"] == pytest.approx(
        losses.kd(logits, wanted_logits, temperature=2.0, alpha=1.0).item(), rel=1e-5
    )
    smooth = nn.functional.cross_entropy(logits, batch.labels, label_smoothing=0.2).item()
    assert terms["hard"] == pytest.approx(smooth, rel=1e-5)


def test_a_teacher_in_train_mode_teaches_as_in_eval_mode_and_stays(task, teacher):
    awake = copy.deepcopy(teacher).train()
    before = {name: value.clone() for name, value in awake.state_dict().items()}
    student, batch = damaged(teacher).eval(), some(task)
    found, wanted = (steps_of(one, student, task)(student, batch)["loss"].item() for one in (awake, teacher))
    assert found == pytest.approx(wanted, rel=1e-6)
    assert awake.training
    assert all(torch.equal(before[name], value) for name, value in awake.state_dict().items())


class Words(nn.Module):
    """The mean of word vectors, as wide as a text is long."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(20, 16), nn.Linear(16, 2)
        self.inner = nn.Linear(16, 16)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        weights = attention_mask.unsqueeze(-1).float()
        return self.out(self.inner((self.table(input_ids) * weights).sum(1) / weights.sum(1)))


@pytest.mark.parametrize("tokens", [2, 5, 16])
def test_the_mask_is_of_tokens_and_of_nothing_else(tokens):
    teacher, ids = Words(), torch.randint(0, 20, (4, tokens))
    mask = torch.ones(4, tokens, dtype=torch.long)
    mask[1:, 1:] = 0
    batch = Batch({"input_ids": ids, "attention_mask": mask}, torch.tensor([0, 1, 0, 1]), torch.arange(4), 4)
    names = layerwise.looks(teacher, batch.inputs)
    assert names == ["table", "out", "inner"]
    step = layerwise.make_step(teacher, layerwise.mean_squares(teacher, batch.inputs, names))
    step(copy.deepcopy(teacher), batch)["loss"].backward()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # the method has another name in newer versions
def test_checkpointed_layers_with_dropout_are_refused():
    pytest.importorskip("transformers")
    import small_transformers as small

    teacher, words = small.bert(2), small.inputs()
    student = small.bert(2, hidden_dropout_prob=0.3).train()
    student.gradient_checkpointing_enable()
    batch = Batch(words, torch.tensor([0, 1, 0]), torch.arange(3), 3)
    squares = layerwise.mean_squares(teacher, words, layerwise.looks(teacher, words))
    with pytest.raises(RecipeError, match=r"gradient checkpointing.*dropout: true"):
        layerwise.make_step(teacher, squares)(student, batch)
    layerwise.make_step(teacher, squares, dropout=True)(student, batch)["loss"].backward()


def test_weights_that_are_computed_are_those_of_their_layer():
    norm = nn.utils.parametrizations.weight_norm
    model = nn.Sequential(norm(nn.Linear(4, 6)), nn.ReLU(), norm(nn.Linear(6, 2)))
    assert layerwise.looks(model, torch.ones(1, 4)) == ["0", "2"]


def test_what_does_not_go_together_is_said(task, teacher):
    with pytest.raises(RecipeError, match="the same model"):
        steps_of(teacher, teacher, task)
    with pytest.raises(RecipeError, match="the same model"):
        layerwise.make_step(teacher, {"head": 1.0})(teacher, some(task))
    with pytest.raises(DataError, match=r"gives \[1, 4, 8, 8\], the teacher's \[1, 6, 8, 8\]; use kd"):
        steps_of(teacher, TinyCNN(4, 10, 14), task)
    with pytest.raises(GraphError, match="no layer is named 'fc9'"):
        steps_of(teacher, damaged(teacher), task, layers=["fc9"])
    with pytest.raises(RecipeError, match="'temperature' is of the teacher's probabilities"):
        layerwise.LayerwiseOptions(alpha=0, temperature=8)
    smooth = Setting(teacher, damaged(teacher), task, TrainOptions(label_smoothing=0.1))
    with pytest.raises(RecipeError, match="label_smoothing"):
        layerwise.build(smooth, layerwise.LayerwiseOptions(alpha=1))
    with pytest.raises(RecipeError, match="no layers are given"):
        layerwise.make_step(teacher, {})
    with pytest.raises(RecipeError, match="weight"):
        layerwise.make_step(teacher, {"head": 1.0}, weight=0.0)
    kept = Setting(teacher, damaged(teacher), task, source=Logits(teacher, lambda: None))
    with pytest.raises(RecipeError, match="cache: false"):
        layerwise.build(kept, layerwise.LayerwiseOptions())
    assert registry.get("layerwise").build is layerwise.build
