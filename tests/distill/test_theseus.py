"""The method theseus: what is trained, and what is left."""

from __future__ import annotations

import copy
import itertools
from contextlib import nullcontext

import pytest
import torch
from lessons import carried_out, first_batch, setting, task, taught
from replaced import alike, of_blocks, tensors
from small_transformers import bert
from torch import nn

import lianzhi as lz
from lianzhi import train
from lianzhi.distill.methods.replacing import Place
from lianzhi.train.checkpoint import read

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The state before and after each stage, with checkpoints, of a model with dropout."""
    model = bert(4, seed=1)
    given = setting(model, copy.deepcopy(model))
    before = tensors(given.teacher)
    lessons = taught(given, "theseus")
    folder = tmp_path_factory.mktemp("theseus")
    options = train.TrainOptions(epochs=3, batch_size=8, lr=3e-3, optimizer="adamw", keep="last")
    states = [tensors(lessons.stages[0].model)]
    for stage in lessons.stages:
        stage.prepare()
        train.fit(
            stage.model,
            given.task,
            options,
            step=stage.step,
            directory=folder / stage.name,
            progress=False,
        )
        states.append(tensors(stage.model))
    return given, lessons, before, states, folder


def test_only_successors_are_trained(trained):
    given, lessons, before, states, folder = trained
    assert [stage.name for stage in lessons.stages] == ["replacing", "finetuning"]
    assert lessons.notes == ["module replacement: 2 layers take the place of layers 1-2, 3-4"]
    for first, second in itertools.pairwise(states):
        for name, value in second.items():
            assert torch.equal(value, first[name]) != of_blocks(name), name
    for model in (given.teacher, given.student):
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert all(one.grad is None and one.requires_grad for one in model.parameters())
    checkpoint = read(folder / "replacing" / "last.safetensors")
    assert {name.rpartition("/")[0] for name in checkpoint.part("optimizer")} == {
        name for name, _ in lessons.stages[0].model.named_parameters() if of_blocks(name)
    }
    assert checkpoint.part("model").keys() == dict(lessons.finish().named_parameters()).keys() | {
        name for name, _ in lessons.finish().named_buffers()
    }


def test_what_is_left_is_an_ordinary_model_and_only_it_runs(trained):
    given, lessons, *_ = trained
    model = lessons.finish()
    assert type(model) is type(given.teacher)
    assert all(one.requires_grad for one in model.parameters())
    assert not any(isinstance(module, Place) for module in model.modules())
    ran = []
    for module in [*model.modules(), *given.teacher.modules()]:
        if type(module).__name__ == "BertLayer":
            module.register_forward_hook(lambda *given: ran.append(given[0]))
    lessons.stages[1].step(model, first_batch(given))["loss"].backward()
    assert ran == list(model.bert.encoder.layer)
    assert len(ran) == 2


def test_every_probability_of_none_learns_nothing():
    given = alike()
    lessons = taught(given, "theseus", schedule="constant", rate=0.0)
    start = tensors(lessons.stages[0].model)
    lessons.stages[0].prepare()
    options = train.TrainOptions(epochs=1, batch_size=8, optimizer="adamw", weight_decay=0.0, clip=1.0)
    train.fit(lessons.stages[0].model, given.task, options, step=lessons.stages[0].step, progress=False)
    assert all(torch.equal(value, start[name]) for name, value in lessons.finish().state_dict().items())


@pytest.mark.parametrize(
    ("tuned", "moved"),
    [("classifier", {"pooler", "classifier"}), ("all", {"pooler", "classifier", "embeddings"})],
)
def test_what_the_last_stage_trains(tuned, moved):
    given = alike()
    lessons = taught(given, "theseus", tuned=tuned)
    start = tensors(lessons.finish())
    carried_out(given, lessons, epochs=1)
    changed = {
        name for name, value in lessons.finish().state_dict().items() if not torch.equal(value, start[name])
    }
    parts = {
        part
        for name in changed
        for part in ("pooler", "classifier", "embeddings", "layer")
        if f"{part}." in name
    }
    assert parts - {"layer"} == moved
    assert any(of_blocks(name) for name in changed)


def test_statistics_of_frozen_norms_stay():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)

        def forward(self, x):
            return x + torch.relu(self.norm(self.linear(x)))

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.norm = nn.Linear(5, 6), nn.BatchNorm1d(6)
            self.blocks = nn.ModuleList(Block() for _ in range(4))
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            x = self.norm(self.stem(x))
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    torch.manual_seed(0)
    model = Deep()
    data = lz.Task(train=[(torch.randn(12, 5) + 2, torch.arange(12) % 3)], num_classes=3)
    given = setting(model, copy.deepcopy(model), data)
    lessons = taught(given, "theseus", schedule="constant")
    stack = lessons.stages[0].step.stack
    start = tensors(lessons.finish())
    old = [tensors(place.predecessor) for place in stack.places]
    carried_out(given, lessons, epochs=6, batch_size=12)
    for name, value in lessons.finish().state_dict().items():
        assert torch.equal(value, start[name]) != name.startswith("blocks"), name
    for place, before in zip(stack.places, old, strict=True):
        assert all(torch.equal(value, before[name]) for name, value in place.predecessor.state_dict().items())


@pytest.mark.parametrize("stop", [2, 5])
def test_a_run_that_was_stopped_ends_with_the_same_weights(tmp_path, stop):
    found = []
    for folder, updates in (("whole", None), ("stopped", stop)):
        given = setting(bert(4, seed=1), bert(4, seed=1), task(20, batch=8))
        lessons = taught(given, "theseus", schedule="linear")
        for stage in lessons.stages:
            count = []

            def interrupt(_, updates=updates, count=count):
                count.append(1)
                if updates is not None and len(count) == updates:
                    raise KeyboardInterrupt

            for resume in (False, True) if updates else (False,):
                stage.prepare()
                options = train.TrainOptions(
                    epochs=2, batch_size=8, lr=3e-3, optimizer="adamw", keep="last", save_every=1e-9
                )
                with pytest.raises(KeyboardInterrupt) if updates and not resume else nullcontext():
                    train.fit(
                        stage.model,
                        given.task,
                        options,
                        step=stage.step,
                        directory=tmp_path / folder / stage.name,
                        resume=resume,
                        progress=False,
                        after_step=None if resume else interrupt,
                    )
        found.append(tensors(lessons.finish()))
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_accumulated_batches_share_a_draw():
    results = []
    for accumulate, size in ((1, 8), (4, 2)):
        given = alike(data=task(8, batch=8))
        lessons = taught(given, "theseus", schedule="constant")
        stage = lessons.stages[0]
        stage.prepare()
        options = train.TrainOptions(
            epochs=6, batch_size=size, accumulate=accumulate, lr=0.02, keep="last", schedule="constant"
        )
        history = train.fit(stage.model, given.task, options, step=stage.step, progress=False)
        results.append((tensors(stage.model), [entry["terms"] for entry in history.epochs]))
    for name, value in results[0][0].items():
        assert torch.allclose(value, results[1][0][name], atol=1e-5), name
    for one, other in zip(results[0][1], results[1][1], strict=True):
        assert one == pytest.approx(other, abs=1e-5)
        assert one["hard"] == one["hard_weighted"]
    assert {entry["replaced"] for entry in results[0][1]} - {0.0, 1.0} <= {0.5}
    assert len({entry["replaced"] for entry in results[0][1]}) > 1
