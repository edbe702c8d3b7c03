"""The method `crd`: what its memory holds, which samples are negatives, and that a stopped run ends the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_cnn import TinyCNN
from torch import Tensor, nn

import lianzhi as lz
from lianzhi import train
from lianzhi.distill import methods
from lianzhi.distill.methods import Setting, Stage
from lianzhi.distill.methods.memory import Memory
from lianzhi.errors import RecipeError
from lianzhi.tasks import Task
from lianzhi.train.options import TrainOptions

OPTIONS = {"negatives": 16, "size": 8}


@pytest.fixture(scope="module")
def task() -> Task:
    return lz.task("synthetic", samples=60, classes=4, shape=(3, 8, 8))


def lesson(task: Task, **options) -> tuple[Setting, Stage]:
    setting = Setting(TinyCNN(6, 10, seed=1), TinyCNN(4, 6, seed=2), task)
    entry = methods.registry.get("crd")
    torch.manual_seed(3)
    (stage,) = entry.build(setting, entry.config(**{**OPTIONS, **options})).stages
    return setting, stage


def test_negatives_are_of_other_samples_and_other_classes():
    memory = Memory(50, 4)
    memory.classes.copy_(torch.arange(50) % 5)
    memory.classes[40:] = -1
    ids, labels = torch.tensor([0, 1, 45]), torch.tensor([0, 1, 2])
    for seed in range(5):
        torch.manual_seed(seed)
        chosen, mask = memory.draw(ids, labels, 30)
        assert len(set(chosen.tolist())) == 30
        for row, (number, label) in enumerate(zip(ids.tolist(), labels.tolist(), strict=True)):
            for column, other in enumerate(chosen.tolist()):
                of_its_class = other < 40 and other % 5 == label
                assert mask[row, column].item() == (other != number and not of_its_class)
    torch.manual_seed(4)
    assert torch.equal(memory.draw(ids, labels, 30)[0], chosen)


def test_labels_that_are_no_classes_leave_out_the_sample_itself_only():
    memory = Memory(6, 4)
    chosen, mask = memory.draw(torch.tensor([2]), torch.tensor([0.5]), 6)
    assert mask.sum() == 5
    assert chosen[~mask[0]].tolist() == [2]


def test_the_memory_moves_towards_what_was_said():
    memory = Memory(5, 3)
    before = memory.student.clone()
    new = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    memory.remember(torch.tensor([4, 1]), torch.tensor([7, 8]), new, new.flip(0), momentum=0.25)
    for row, said in ((4, new[0]), (1, new[1])):
        mixed = 0.25 * before[row] + 0.75 * said
        assert torch.allclose(memory.student[row], mixed / mixed.norm())
    assert torch.equal(memory.student[[0, 2, 3]], before[[0, 2, 3]])
    assert memory.classes.tolist() == [-1, 8, -1, -1, 7]


def test_the_loss_by_hand(task):
    """The first step in NumPy: projections, one draw, both networks as the anchor, Z from the draw."""
    setting, stage = lesson(task)
    learner = stage.model.eval()
    memory = learner.heads["memory"]
    data = next(iter(task.batches("train", 6)))
    banks = {side: getattr(memory, side).clone().double().numpy() for side in ("student", "teacher")}
    torch.manual_seed(9)
    result = stage.step(learner, data)
    torch.manual_seed(9)
    samples = task.size("train")
    chosen = torch.randperm(samples)[:16].numpy()

    said = {}
    for side, model in (("student", setting.student), ("teacher", setting.teacher.eval())):
        with torch.no_grad():
            features = model.stages(data.inputs).mean((2, 3))
        head = learner.heads[side]
        vectors = features.double().numpy() @ head.weight.detach().double().numpy().T
        vectors += head.bias.detach().double().numpy()
        said[side] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    total = 0.0
    for side, other in (("student", "teacher"), ("teacher", "student")):
        far = np.exp(said[side] @ banks[other][chosen].T / 0.07)
        rest = samples * far.mean() * 16 / samples
        for row, number in enumerate(data.ids.tolist()):
            near = np.exp(said[side][row] @ banks[other][number] / 0.07)
            keep = chosen != number  # no class is known yet
            total += -np.log(near / (near + rest)) - 16 * np.log(rest / (far[row, keep] + rest)).mean()
    assert result["terms"]["crd"].item() == pytest.approx(total / 6, rel=1e-5)
    assert result["terms"]["crd_weighted"].item() == pytest.approx(0.8 * total / 6, rel=1e-5)
    result["loss"].backward()
    for part in (setting.student.stages, learner.heads["student"], learner.heads["teacher"]):
        assert all(parameter.grad is not None for parameter in part.parameters())
    assert memory.classes[data.ids].tolist() == data.labels.tolist()


def test_constants_are_fixed_by_the_first_batch(task):
    _, stage = lesson(task)
    memory, batches = stage.model.heads["memory"], list(task.batches("train", 20))
    assert memory.normalizers.tolist() == [0, 0]
    stage.step(stage.model, batches[0])
    first = memory.normalizers.clone()
    assert (first > 0).all()
    stage.step(stage.model, batches[1])
    assert torch.equal(memory.normalizers, first)


def run(task: Task, folder, *, resume: bool = False, stop: int | None = None) -> dict[str, Tensor]:
    _, stage = lesson(task, soft=1.0)
    done = []

    def after(_: nn.Module) -> None:
        done.append(1)
        if len(done) == stop:
            raise InterruptedError

    options = TrainOptions(epochs=3, batch_size=10, lr=0.02, save_every=1e-9, keep="last")
    arguments = {"step": stage.step, "directory": folder, "resume": resume, "progress": False}
    train.fit(stage.model, task, options, after_step=after, **arguments)
    return {key: value.clone() for key, value in stage.model.state_dict().items()}


def test_a_stopped_run_ends_with_the_same_weights_and_memory(task, tmp_path):
    whole = run(task, tmp_path / "whole")
    for stop in (5, 6):
        with pytest.raises(InterruptedError):
            run(task, tmp_path / "stopped", stop=stop, resume=stop > 5)
    resumed = run(task, tmp_path / "stopped", resume=True)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert any(key.startswith("heads.memory") for key in whole)


def test_numbers_must_stay(task):
    batches = [(batch.inputs, batch.labels) for batch in task.batches("train", 20)]
    with pytest.raises(RecipeError, match="positions in a loader"):
        lesson(Task(train=batches, name="own"))


def test_one_layer_with_one(task):
    names = ["stages.0", "stages.1"]
    with pytest.raises(RecipeError, match="and 2 pairs were named"):
        lesson(task, student_layers=names, teacher_layers=names)
