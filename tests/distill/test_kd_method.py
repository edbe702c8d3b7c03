"""The method `kd`: one step's loss, and the teacher left as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import lianzhi as lz
from lianzhi.distill import losses, methods
from lianzhi.errors import DataError, RecipeError
from lianzhi.tasks import Batch


def net(classes: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, classes)
    )


def batch(count: int = 6) -> Batch:
    return Batch(torch.randn(count, 4), torch.arange(count) % 3, torch.arange(count), count)


def test_the_loss_is_that_of_the_equation():
    teacher, student, data = net(seed=1), net(seed=2).eval(), batch()
    result = methods.kd.make_step(teacher, temperature=3.0, alpha=0.7)(student, data)
    with torch.no_grad():
        wanted = losses.kd(
            student(data.inputs), teacher.eval()(data.inputs), data.labels, temperature=3.0, alpha=0.7
        )
    assert result["loss"].item() == pytest.approx(wanted.item(), rel=1e-6)
    terms = {name: value.item() for name, value in result["terms"].items()}
    assert terms["soft_weighted"] == pytest.approx(0.7 * terms["soft"])
    assert terms["hard_weighted"] == pytest.approx(0.3 * terms["hard"])
    assert terms["soft_weighted"] + terms["hard_weighted"] == pytest.approx(wanted.item(), rel=1e-6)
    assert not any(value.requires_grad for value in result["terms"].values())


def test_the_tasks_own_loss_is_the_hard_one():
    teacher, student, data = net(seed=1), net(seed=2).eval(), batch()

    def smoothed(outputs, labels):
        return functional.cross_entropy(outputs, labels, label_smoothing=0.3)

    result = methods.kd.make_step(teacher, alpha=0.0, loss=smoothed)(student, data)
    assert result["loss"].item() == pytest.approx(smoothed(student(data.inputs), data.labels).item())


def test_the_teacher_is_left_as_it_was():
    teacher, student = net(seed=1).train(), net(seed=2).train()
    teacher[1].eval()  # frozen statistics in a model that trains
    modes = [module.training for module in teacher.modules()]
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    names = set(student.state_dict())
    step = methods.kd.make_step(teacher)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        step(student, batch())["loss"].backward()
        optimizer.step()
        assert [module.training for module in teacher.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert set(student.state_dict()) == names


def test_the_teacher_runs_in_eval_mode():
    teacher, student, data = net(seed=1).train(), net(seed=2).eval(), batch()
    step = methods.kd.make_step(teacher, alpha=1.0)
    values = {step(student, data)["loss"].item() for _ in range(5)}
    assert len(values) == 1, "dropout was on"


def test_the_modes_come_back_when_the_teacher_fails():
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout()

        def forward(self, x):
            raise ValueError("no")

    teacher = Fails().train()
    with pytest.raises(ValueError, match="no"):
        methods.kd.make_step(teacher)(net(), batch())
    assert teacher.training
    assert teacher.drop.training


def test_a_student_that_equals_the_teacher_learns_the_labels_only():
    teacher, data = net().eval(), batch()
    student = net().eval()
    result = methods.kd.make_step(teacher, alpha=0.9)(student, data)
    assert result["terms"]["soft"].item() == 0.0
    assert result["loss"].item() == pytest.approx(
        0.1 * functional.cross_entropy(student(data.inputs), data.labels).item()
    )


def test_it_learns_from_the_teacher_without_good_labels():
    torch.manual_seed(0)
    teacher, student = nn.Linear(4, 3), nn.Linear(4, 3)
    step, inputs = methods.kd.make_step(teacher, alpha=1.0, temperature=2.0), torch.randn(200, 4)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        step(student, Batch(inputs, torch.zeros(200).long(), torch.arange(200), 200))["loss"].backward()
        optimizer.step()
    agreement = (student(inputs).argmax(1) == teacher(inputs).argmax(1)).double().mean().item()
    assert agreement > 0.98


class Named(nn.Module):
    """Takes keywords and returns a dict, as text models do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, values, scale):
        return {"logits": self.layer(values) * scale, "hidden": values}


def test_keyword_inputs_and_outputs_by_name():
    data = batch()
    named = Batch({"values": data.inputs, "scale": torch.tensor(2.0)}, data.labels, data.ids, 6)
    result = methods.kd.make_step(Named())(Named(), named)
    result["loss"].backward()
    assert result["loss"].item() > 0


def test_different_classes_are_refused_before_anything_is_updated():
    step = methods.kd.make_step(net(classes=5))
    with pytest.raises(DataError, match=r"student's outputs have shape \[6, 3\] and the teacher's \[6, 5\]"):
        step(net(classes=3), batch())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: methods.kd.make_step(None), "needs a teacher"),
        (lambda: methods.kd.make_step(net(), temperature=0.0), "temperature"),
        (lambda: methods.kd.make_step(net(), alpha=1.5), "alpha"),
        (lambda: methods.kd.make_step(net(), alpha=0.5, weight=2.0), "one of 'alpha' and 'weight'"),
    ],
)
def test_wrong_options_are_named(make, message):
    with pytest.raises(RecipeError, match=message):
        make()


def test_the_student_cannot_be_its_own_teacher():
    model = net()
    with pytest.raises(RecipeError, match="same model"):
        methods.kd.make_step(model)(model, batch())


def test_outputs_without_logits_are_named():
    class Pair(nn.Linear):
        def forward(self, x):
            return super().forward(x), x

    with pytest.raises(DataError, match="teacher returns a tuple"):
        methods.kd.make_step(Pair(4, 3))(nn.Linear(4, 3), batch())


def test_the_registry_builds_it():
    entry = methods.registry.get("kd")
    task = lz.Task(train=[(torch.ones(2, 4), torch.tensor([0, 2]))], num_classes=3)
    teacher, student = net(), net(seed=2).eval()
    lessons = entry.build(methods.Setting(teacher, student, task), entry.config(temperature=2.0))
    data = next(iter(task.batches("train", 2)))
    found = lessons.stages[0].step(student, data)
    expected = methods.kd.make_step(teacher, temperature=2.0)(student, data)
    assert torch.equal(found["loss"], expected["loss"])
    assert lessons.finish is None
    assert entry.config().to_dict() == {
        "temperature": 4.0,
        "alpha": 0.9,
        "standardize": False,
        "weight": None,
    }


def test_standardized_logits():
    """Weight 9 beside 1 of the labels, T 2: the defaults of the paper on it, unless others are given."""
    teacher, student, data = net(seed=1).eval(), net(seed=2).eval(), batch()
    ours, theirs = student(data.inputs).detach(), teacher(data.inputs).detach()
    hard = functional.cross_entropy(ours, data.labels)
    result = methods.kd.make_step(teacher, standardize=True)(student, data)
    soft = losses.kd(ours, theirs, alpha=1.0, temperature=2.0, standardize=True)
    assert result["loss"].item() == pytest.approx((9 * soft + hard).item(), rel=1e-6)
    assert result["terms"]["soft_weighted"].item() == pytest.approx(9 * soft.item(), rel=1e-6)
    result = methods.kd.make_step(teacher, standardize=True, alpha=0.7, temperature=3.0)(student, data)
    wanted = losses.kd(ours, theirs, data.labels, alpha=0.7, temperature=3.0, standardize=True)
    assert result["loss"].item() == pytest.approx(wanted.item(), rel=1e-6)


@pytest.mark.parametrize(
    "given", [{}, {"standardize": True}, {"weight": 3.0}, {"standardize": True, "alpha": 0.5}]
)
def test_options_come_back_from_a_file_as_they_were(given):
    options = methods.kd.KDMethodOptions(**given)
    assert methods.kd.KDMethodOptions(**options.to_dict()) == options
    assert (options.alpha is None) != (options.weight is None)


@pytest.mark.parametrize("method", ["kd", "dkd", "dist"])
def test_label_smoothing_is_of_every_method_s_own_loss(method):
    task = lz.Task(train=[(torch.randn(6, 4), torch.arange(6) % 3)], num_classes=3)
    teacher, student, data = net(), net(seed=2).eval(), next(iter(task.batches("train", 6)))
    entry = methods.registry.get(method)
    found = [
        entry.build(
            methods.Setting(teacher, student, task, training=lz.Train(label_smoothing=smoothing)),
            entry.config(),
        )
        .stages[0]
        .step(student, data)["terms"]["hard"]
        for smoothing in (0.0, 0.3)
    ]
    logits = student(data.inputs)
    for value, smoothing in zip(found, (0.0, 0.3), strict=True):
        wanted = functional.cross_entropy(logits, data.labels, label_smoothing=smoothing)
        assert torch.allclose(value, wanted)
    assert not torch.allclose(*found)


def test_there_is_one_copy_of_the_teacher_on_another_device():
    """For its logits and for what is inside of it; the teacher that was given stays where it is."""
    teacher, elsewhere = net(seed=1), torch.device("meta")
    given = methods.Setting(teacher, net(seed=2), lz.task("synthetic", samples=20, classes=3, shape=(4,)))
    with given.running(elsewhere) as there:
        assert {tensor.device.type for tensor in there.parameters()} == {"meta"}
        assert not there.training
    data = batch()
    moved = Batch(data.inputs.to(elsewhere), data.labels, data.ids, data.total)
    assert given.logits(moved, elsewhere).device == elsewhere
    with given.running(elsewhere) as again:
        assert again is there
    assert given.source.teacher is there
    assert {tensor.device.type for tensor in teacher.parameters()} == {"cpu"}
