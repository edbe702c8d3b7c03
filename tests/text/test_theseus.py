"""The ready recipes of module replacement at tiny size: fewer layers, and what later steps make of them."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
import yaml
from tiny_text import write_model

import lianzhi as lz
from lianzhi import cli, deploy, files, jobs, train
from lianzhi.pipeline.distilling import check_distill, run_distill
from lianzhi.pipeline.state import Run, State
from lianzhi.pipeline.store import Store

RECIPES = Path(__file__).parents[2] / "recipes"
TRAIN = {"optimizer": "adamw", "lr": 3e-3, "batch_size": 32}


def write(folder: Path, bert: Path, glue: Path, steps, target: str = "pytorch") -> Path:
    model = {"name": "huggingface", "path": str(bert), "num_classes": 2}
    task = {"name": "sst2", "data": str(glue), "max_length": 32}
    measure = {"batches": [1], "repeats": 2, "threads": 1}
    file = folder / "r.yaml"
    file.write_text(
        yaml.safe_dump({"model": model, "task": task, "target": target, "measure": measure, "steps": steps})
    )
    return file


def ready(name: str, **changes) -> dict:
    """The step of a ready recipe, with an epoch a stage."""
    found = files.parse_yaml((RECIPES / f"{name}.yaml").read_text(), name)["steps"][0]["distill"]
    found["stages"] = {stage: {"epochs": 1} for stage in found["stages"]}
    return {"distill": {**found, "lr": 2e-3, **changes}}


@pytest.fixture(scope="module")
def deep(tmp_path_factory) -> Path:
    """The folder of a BERT of four layers."""
    return write_model(tmp_path_factory.mktemp("deep"), num_hidden_layers=4)


@pytest.fixture(scope="module")
def weights(deep, glue, tmp_path_factory):
    """What it has learned."""
    job = jobs.prepare(str(write(tmp_path_factory.mktemp("teacher"), deep, glue, [{"train": TRAIN}])))
    train.fit(job.model, job.task, train.TrainOptions(**TRAIN, epochs=8, warmup=0.1), progress=False)
    return job.model.state_dict()


class Distilling:
    """A distill step alone."""

    def __init__(self, folder: Path, deep: Path, glue: Path, weights, step: dict) -> None:
        job = jobs.prepare(str(write(folder, deep, glue, [step])))
        job.model.load_state_dict(weights)
        self.run = Run(job.recipe, job.task, Store(folder / "out"), progress=False)
        self.teacher = job.model.eval()
        self.step = job.recipe.steps[0]
        self.folder = folder / "work"

    def __call__(self, *, resume: bool = False) -> tuple[State, dict]:
        state = State(copy.deepcopy(self.teacher), self.teacher)
        check_distill(self.run, State(model=self.teacher, teacher=self.teacher), self.step)
        return state, run_distill(self.run, state, self.step, self.folder, resume=resume)


@pytest.mark.parametrize("name", ["sst2-theseus", "sst2-theseus-plus"])
def test_a_ready_recipe_leaves_fewer_layers(deep, glue, weights, tmp_path, name):
    work = Distilling(tmp_path, deep, glue, weights, ready(name))
    state, details = work()
    model, task = state.model, work.run.task
    assert len(model.bert.encoder.layer) == model.config.num_hidden_layers == 2
    outer = ["embeddings"] if "plus" in name else ["embeddings", "pooler", "classifier"]
    for key, value in model.state_dict().items():
        if any(part in key for part in outer):
            assert torch.equal(value, weights[key]), key
    assert all(torch.equal(value, weights[key]) for key, value in work.teacher.state_dict().items())
    batch = next(iter(task.batches("test", 60)))
    with torch.no_grad():
        found = model.eval()(**batch.inputs).logits
    assert (found.argmax(1) == batch.labels).double().mean() > 0.8
    terms = details["stages"]["replacing"]["epochs"][0]["terms"]
    assert 0.3 < terms["rate"] < 1
    assert terms["hard_weighted"] == pytest.approx(terms["hard"] * (0.5 if "plus" in name else 1))
    assert set(details["stages"]["finetuning"]["epochs"][0]["terms"]) == set(terms) - {"rate", "replaced"}
    lz.save(model, tmp_path / "saved", example_inputs=task.example_inputs)
    again = lz.load(tmp_path / "saved").eval()
    assert len(again.bert.encoder.layer) == 2
    with torch.no_grad():
        assert torch.allclose(again(**batch.inputs).logits, found, atol=1e-6)


def test_what_is_left_is_exported_and_pruned(deep, glue, weights, tmp_path):
    work = Distilling(tmp_path, deep, glue, weights, ready("sst2-theseus", max_steps=2))
    model, example = work()[0].model.eval(), work.run.task.example_inputs
    batch = next(iter(work.run.task.batches("test", 60)))
    with torch.no_grad():
        found = model(**batch.inputs).logits
    session = deploy.load(deploy.export_onnx(model, example, tmp_path / "m.onnx"), runtime="onnxruntime")
    assert torch.allclose(session(batch.inputs), found, atol=2e-4)
    narrow = lz.prune.plan(model, example, ratio=0.3, granularity="ffn").apply()
    assert lz.measure.parameters(narrow) < lz.measure.parameters(model)
    assert len(narrow.bert.encoder.layer) == 2


@pytest.mark.parametrize("stage", ["replacing", "finetuning"])
def test_a_run_stopped_in_a_stage_ends_with_the_same_weights(
    deep, glue, weights, tmp_path, monkeypatch, stage
):
    ends = []
    for folder in ("whole", "stopped"):
        (tmp_path / folder).mkdir()
        step = ready("sst2-theseus-plus", save_every=1e-9, options={"order": "easiest", "measured": 32})
        work = Distilling(tmp_path / folder, deep, glue, weights, step)
        if folder == "stopped":
            with monkeypatch.context() as patch:
                stop_at(patch, stage, 3)
                with pytest.raises(KeyboardInterrupt):
                    work()
        ends.append(work(resume=folder == "stopped")[0].model.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def stop_at(monkeypatch, stage: str, updates: int) -> None:
    real = train.fit
    seen = []

    def stop(model):
        seen.append(model)
        if len(seen) > updates:
            raise KeyboardInterrupt

    def fit(model, task, options, **rest):
        return real(model, task, options, **{**rest, "after_step": stop if stage in rest["title"] else None})

    monkeypatch.setattr(train, "fit", fit)


@pytest.mark.slow
def test_from_the_command_to_an_int8_file(deep, glue, tmp_path):
    steps = [
        {"train": {**TRAIN, "epochs": 8, "warmup": 0.1}},
        ready("sst2-theseus"),
        {"quantize": {"calibration": 32}},
    ]
    recipe = write(tmp_path, deep, glue, steps, "onnxruntime")
    recipe.write_text(recipe.read_text() + "precision: int8\n")
    assert cli.main(["compress", str(recipe), "-o", str(tmp_path / "out"), "--quiet"]) == 0
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["rows"]
    layer = lz.model("huggingface", path=str(deep), num_classes=2).bert.encoder.layer[0]
    assert rows[1]["parameters"] - rows[2]["parameters"] == 2 * lz.measure.parameters(layer)
    assert rows[-1]["precision"] == "int8"
    assert abs(rows[-1]["value"] - rows[-2]["value"]) < 0.1
    assert cli.main(["predict", str(tmp_path / "out"), "a very good film", "--quiet"]) == 0
