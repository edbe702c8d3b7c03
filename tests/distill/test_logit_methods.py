"""The methods `dkd` and `dist` (and `kd` beside them): the loss of a step, the warm-up, a training of small CNNs."""

from __future__ import annotations

import numpy
import pytest
import torch
from tiny_cnn import TinyCNN
from torch import nn
from torch.nn import functional

import lianzhi as lz
from lianzhi import train
from lianzhi.distill import losses, methods
from lianzhi.errors import DataError, RecipeError

BATCH = 24
GENERATOR = torch.Generator().manual_seed(5)
LABELS = torch.arange(4 * BATCH) % 4
SAMPLES = torch.randn(4, 3, 8, 8, generator=GENERATOR)[LABELS]  # a pattern a class, and noise
SAMPLES += 0.5 * torch.randn(SAMPLES.shape, generator=GENERATOR)


def task_of(labels=LABELS, **options) -> lz.Task:
    batches = list(zip(SAMPLES.split(BATCH), labels.split(BATCH), strict=True))
    return lz.Task(train=batches, **{"num_classes": 4, **options})


def setting(teacher=None, student=None, task=None) -> methods.Setting:
    return methods.Setting(teacher or TinyCNN(8, 16, seed=1), student or TinyCNN(4, 8), task or task_of())


def stage_of(name, given, **options):
    entry = methods.registry.get(name)
    lessons = entry.build(given, entry.config(**options))
    assert lessons.finish is None
    (stage,) = lessons.stages
    assert stage.name == name
    return stage


def batch_of(given):
    return next(iter(given.task.batches("train", BATCH)))


def logits_of(given, batch):
    with torch.no_grad():
        return given.student(batch.inputs), given.teacher.eval()(batch.inputs)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": 2.0, "beta": 3.0, "temperature": 1.0, "hard": 0.5},
        {"standardize": True},
        {"standardize": True, "temperature": 3.0, "weight": 0.5},
    ],
)
def test_the_loss_of_dkd(options):
    given = setting()
    given.student.eval()
    step, batch = stage_of("dkd", given, warmup=0.0, **options).step, batch_of(given)
    student, teacher = logits_of(given, batch)
    standardize = options.get("standardize", False)
    values = {
        "alpha": options.get("alpha", 1.0),
        "beta": options.get("beta", 8.0),
        "temperature": options.get("temperature", 2.0 if standardize else 4.0),
        "standardize": standardize,
    }
    weight, hard = options.get("weight", 9.0 if standardize else 1.0), options.get("hard", 1.0)
    wanted = weight * losses.dkd(student, teacher, batch.labels, **values)
    wanted += hard * functional.cross_entropy(student, batch.labels)
    result = step(given.student, batch)
    assert result["loss"].item() == pytest.approx(wanted.item(), rel=1e-5)
    terms = {name: value.item() for name, value in result["terms"].items()}
    assert terms["others_weighted"] == pytest.approx(weight * values["beta"] * terms["others"], rel=1e-6)
    assert terms["target_weighted"] == pytest.approx(weight * values["alpha"] * terms["target"], rel=1e-6)
    assert terms["hard_weighted"] == pytest.approx(hard * terms["hard"], rel=1e-6)
    assert not any(value.requires_grad for value in result["terms"].values())


@pytest.mark.parametrize("options", [{}, {"beta": 2.0, "gamma": 0.5, "temperature": 4.0, "hard": 0.1}])
def test_the_loss_of_dist(options):
    given = setting()
    given.student.eval()
    step, batch = stage_of("dist", given, **options).step, batch_of(given)
    student, teacher = logits_of(given, batch)
    hard = options.pop("hard", 1.0)
    wanted = losses.dist(student, teacher, **options)
    wanted += hard * functional.cross_entropy(student, batch.labels)
    result = step(given.student, batch)
    assert result["loss"].item() == pytest.approx(wanted.item(), rel=1e-5)
    assert result["terms"]["intra"].item() > 0.01
    assert sorted(result["terms"]) == sorted(
        name + end for name in ("inter", "intra", "hard") for end in ("", "_weighted")
    )


def test_the_weights_of_dkd_grow_over_a_twelfth_of_training():
    given = setting()
    given.student.eval()
    step, batch = stage_of("dkd", given).step, batch_of(given)
    seen = {}
    for number in (0, 5, 10, 20, 239):
        step.at(number, 240)
        terms = step(given.student, batch)["terms"]
        seen[number] = (terms["others_weighted"] / terms["others"]).item()
        assert terms["hard_weighted"].item() == terms["hard"].item()
    wanted = {0: 0.0, 5: 8 * 5 / 20, 10: 8 * 10 / 20, 20: 8.0, 239: 8.0}
    assert seen == pytest.approx(wanted, rel=1e-5)


def test_the_training_loop_tells_the_number_of_the_update():
    given = setting()
    stage = stage_of("dkd", given, warmup=0.5)
    numbers = []
    tell = stage.step.at

    def at(number, total):
        tell(number, total)
        numbers.append((number, total, stage.step.grown))

    stage.step.at = at
    options = train.TrainOptions(epochs=1, batch_size=BATCH)
    train.fit(given.student, given.task, options, step=stage.step, progress=False)
    assert numbers == [(0, 4, 0.0), (1, 4, 0.5), (2, 4, 1.0), (3, 4, 1.0)]


@pytest.fixture(scope="module")
def teacher():
    model = TinyCNN(12, 24, seed=1)
    options = train.TrainOptions(epochs=8, batch_size=BATCH, lr=0.1)
    train.fit(model, task_of(), options, progress=False)
    model.zero_grad(set_to_none=True)
    return model


@pytest.mark.parametrize(
    ("name", "options", "lr"),
    [
        ("kd", {}, 0.05),
        ("kd", {"standardize": True}, 0.05),
        ("dkd", {}, 0.05),
        ("dkd", {"standardize": True, "beta": 1.0}, 0.02),
        ("dist", {}, 0.05),
    ],
)
def test_a_small_cnn_learns_and_the_teacher_stays(teacher, name, options, lr):
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    given = setting(teacher.train())
    probe, batch = stage_of(name, given, **options).step, batch_of(given)
    if name == "dkd":
        probe.at(1, 1)
    start = probe(given.student.eval(), batch)["loss"].item()
    parameters = [parameter.clone() for parameter in given.student.parameters()]
    training = train.TrainOptions(epochs=20, batch_size=BATCH, lr=lr)
    train.fit(given.student, given.task, training, step=stage_of(name, given, **options).step, progress=False)
    assert probe(given.student.eval(), batch)["loss"].item() < 0.2 * start
    assert all(not torch.equal(a, b) for a, b in zip(parameters, given.student.parameters(), strict=True))
    assert teacher.training
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert (given.student(SAMPLES).argmax(1) == LABELS).double().mean().item() > 0.95


def test_a_loss_by_its_name_beside_the_tasks_own():
    """reverse KL by hand: Σ s · (log s - log t) of the probabilities, the mean over samples."""
    given = setting()
    given.student.eval()
    batch = batch_of(given)
    student, teacher = (logits.double().numpy() for logits in logits_of(given, batch))
    own, other = (
        value - numpy.log(numpy.exp(value).sum(1, keepdims=True)) for value in (student / 2, teacher / 2)
    )
    soft = 4 * (numpy.exp(own) * (own - other)).sum(1).mean()
    hard = -numpy.log(numpy.exp(student) / numpy.exp(student).sum(1, keepdims=True))
    hard = hard[numpy.arange(BATCH), batch.labels.numpy()].mean()
    options = {"loss": "reverse_kl", "loss_options": {"temperature": 2.0}, "weight": 3.0, "hard": 0.5}
    found = stage_of("logit_loss", given, **options).step(given.student, batch)
    assert found["loss"].item() == pytest.approx(3 * soft + 0.5 * hard, rel=1e-5)
    assert found["terms"]["reverse_kl_weighted"] == pytest.approx(3 * soft, rel=1e-5)


def test_a_loss_that_needs_labels_gets_them():
    given = setting()
    given.student.eval()
    batch = batch_of(given)
    student, teacher = logits_of(given, batch)
    found = stage_of("logit_loss", given, loss="dkd", hard=0.0).step(given.student, batch)["loss"]
    assert found.item() == pytest.approx(losses.dkd(student, teacher, batch.labels).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "revers_kl"}, "unknown loss 'revers_kl'; did you mean 'reverse_kl'"),
        ({"loss": "rkd"}, "loss 'rkd' is not on logits: it takes student, teacher; .*there are dist, dkd"),
        ({"loss": "jsd", "loss_options": {"betta": 1}}, "did you mean 'beta'"),
        ({"loss": "logit_mse", "loss_options": {"beta": 1}}, "unknown option 'beta'"),
    ],
)
def test_a_loss_that_cannot_be_taken_is_refused_before_any_training(options, message):
    with pytest.raises(RecipeError, match=message):
        stage_of("logit_loss", setting(), **options)


@pytest.mark.parametrize("name", ["dkd", "dist"])
def test_one_output_is_a_regression(name):
    targets = LABELS.float()[:, None]
    task = task_of(targets, num_classes=None, loss=functional.mse_loss)
    given = setting(TinyCNN(8, 16, classes=1, seed=1), TinyCNN(4, 8, classes=1), task)
    given.student.eval()
    batch = batch_of(given)
    student, teacher = logits_of(given, batch)
    step = stage_of(name, given).step
    step.at(1, 1)
    wanted = (student - teacher).square().mean() + functional.mse_loss(student, batch.labels)
    assert step(given.student, batch)["loss"].item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["kd", "dkd", "dist"])
def test_other_classes_are_refused_in_the_first_step(name):
    given = setting(TinyCNN(8, 16, classes=5))
    with pytest.raises(
        DataError, match=r"student's outputs have shape \[24, 4\] and the teacher's \[24, 5\]"
    ):
        stage_of(name, given).step(given.student, batch_of(given))
    model = TinyCNN(4, 8)
    given = setting(model, model)
    with pytest.raises(RecipeError, match="same model"):
        stage_of(name, given).step(model, batch_of(given))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dkd", {"beta": -1}, "beta"),
        ("dkd", {"warmup": 1.0}, "warmup"),
        ("dkd", {"betta": 1}, "did you mean 'beta'"),
        ("dist", {"temperature": 0}, "temperature"),
        ("dist", {"hard": -1}, "hard"),
    ],
)
def test_wrong_options_are_named(name, options, message):
    with pytest.raises(RecipeError, match=message):
        methods.registry.get(name).config(**options)


def test_dkd_stands_in_a_recipe(tmp_path):
    task = lz.task("synthetic", samples=96, classes=4, shape=(3, 8, 8))
    step = lz.Distill(
        method="dkd", options={"beta": 2, "standardize": True}, epochs=2, batch_size=32, augment=False
    )
    measure = lz.Measure(batches=(1,), repeats=2, threads=1)
    result = lz.compress(
        nn.Sequential(nn.Flatten(), nn.Linear(192, 4)),
        task,
        [step],
        output=tmp_path / "out",
        target="pytorch",
        measure=measure,
        progress=False,
    )
    epochs = result.report.rows[1]["details"]["history"]["epochs"]
    assert len(epochs) == 2
    assert {"target", "others", "hard", "others_weighted"} <= set(epochs[0]["terms"])
