"""What holds for every method on transformers: the loss falls, the teacher stays, processes and parts of a batch add up."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import lessons
import numpy as np
import pytest
import torch
from lessons import CASES, STILL, carried_out, first_batch, setting, task, taught, terms_of
from safetensors.torch import load_file
from small_transformers import SIZES, TEXT, bert

from lianzhi import train
from lianzhi.distill.methods.teacher import Logits
from lianzhi.errors import DataError, GraphError, LianzhiError, RecipeError

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("case", CASES)
def test_the_loss_falls_and_the_teacher_stays(case):
    name, options, changes = CASES[case]
    given = setting(**changes)
    given.teacher.train()
    before = {key: value.clone() for key, value in given.teacher.state_dict().items()}
    names = list(given.student.state_dict())
    weights = copy.deepcopy(given.student.state_dict())
    made = taught(given, name, **options)
    for number, history in enumerate(carried_out(given, made)):
        values = [entry["loss"] for entry in history.epochs]
        assert values[-1] < (0.96 if number == 0 else 1.0) * values[0], values
    assert made.finish is None
    assert list(given.student.state_dict()) == names
    assert any(not torch.equal(value, weights[key]) for key, value in given.student.state_dict().items())
    for key, value in given.teacher.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(parameter.grad is None for parameter in given.teacher.parameters())
    assert all(module.training for module in given.teacher.modules())
    assert not any(module._forward_hooks for module in [*given.teacher.modules(), *given.student.modules()])


@pytest.mark.parametrize("case", CASES)
def test_terms_are_logged_with_and_without_weight(case):
    name, options, changes = CASES[case]
    given = setting(**changes)
    stage = taught(given, name, **options).stages[0]
    result = stage.step(stage.model or given.student, first_batch(given))
    terms = terms_of(result)
    plain = [key for key in terms if not key.endswith("_weighted")]
    assert sorted(terms) == sorted([*plain, *(f"{key}_weighted" for key in plain)])
    assert result["loss"].item() == pytest.approx(sum(terms[f"{key}_weighted"] for key in plain), rel=1e-6)
    assert not any(value.requires_grad for value in result["terms"].values())


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """The gradients of all methods in two processes."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, *(os.environ.get("PYTHONPATH", "").split(os.pathsep))])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
    done = subprocess.run(
        [*command, lessons.__file__, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("case", lessons.IN_PROCESSES)
def test_two_processes_have_the_gradient_of_one(two, case):
    wanted = lessons.gradients(case)
    assert sum(key.startswith("2/") for key in wanted) > 10
    for rank in (0, 1):
        found = load_file(two / f"{case}-{rank}.safetensors")
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            assert torch.allclose(found[key], value, rtol=1e-8, atol=1e-10), key


@pytest.mark.parametrize("case", CASES)
def test_accumulated_batches_have_the_gradient_of_a_large_one(case):
    name, options, changes = CASES[case]
    found = []
    for batch, accumulate in ((8, 1), (4, 2)):
        given = setting(data=task(8, batch=batch), **changes)
        gradients = {}
        stage = taught(given, name, **options).stages[0]
        training = train.TrainOptions(epochs=1, accumulate=accumulate, keep="last", lr=0.01)
        train.fit(
            stage.model or given.student,
            given.task,
            training,
            step=stage.step,
            progress=False,
            after_step=lambda model, into=gradients: into.update(
                {key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None}
            ),
        )
        found.append(gradients)
    assert found[0].keys() == found[1].keys()
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_gives_finite_losses_that_fall(case):
    name, options, changes = CASES[case]
    given = setting(**changes)
    history = carried_out(given, taught(given, name, **options), precision="bf16")[0]
    values = [entry["loss"] for entry in history.epochs]
    assert np.isfinite(values).all()
    assert values[-1] < values[0]


@pytest.mark.parametrize(
    ("name", "change", "options", "error", "message"),
    [
        ("pkd", {}, {"map": [5]}, RecipeError, "the teacher has no layer 5; it has 4 layers"),
        ("pkd", {}, {"map": "skipp"}, RecipeError, "did you mean 'skip'"),
        ("pkd", {"hidden_size": 16}, {}, DataError, "16 wide, the teacher's 32"),
        ("pkd", {"num_labels": 3}, {}, DataError, r"\[1, 3\] and the teacher's \[1, 2\]"),
        ("pkd", {"vocab_size": 31}, {}, DataError, "31 tokens and the teacher's 30"),
        ("distilbert", {"hidden_size": 16}, {}, DataError, "16 wide, the teacher's 32"),
        ("distilbert", {"num_labels": 3}, {}, DataError, r"\[1, 3\] and the teacher's \[1, 2\]"),
        ("minilm", {"num_labels": 3}, {}, DataError, r"\[1, 3\] and the teacher's \[1, 2\]"),
        ("minilm", {}, {"student_layer": 3}, RecipeError, "student_layer: 3, and the student has 2 layers"),
        ("minilm", {"num_attention_heads": 2}, {"version": 1}, DataError, "minilm_v2 takes any"),
        ("minilm", {}, {"relation_heads": 5}, DataError, "32 cannot be split into 5 relation heads"),
    ],
)
def test_what_cannot_be_taught_is_told_before_the_first_step(name, change, options, error, message):
    given = setting(**change)
    with pytest.raises(error, match=message):
        taught(given, name, **options)


@pytest.mark.parametrize("name", ["pkd", "minilm", "distilbert"])
def test_a_teacher_that_is_the_student_or_is_not_run(name):
    model = bert(2, seed=2, **STILL)
    options = {"map": [1]} if name == "pkd" else {}
    with pytest.raises(RecipeError, match="same model"):
        taught(setting(model, model), name, **options)
    given = setting()
    given.source = Logits(given.teacher, keep=lambda: None)
    with pytest.raises(RecipeError, match="cache: false"):
        taught(given, name, **options)


def test_a_model_that_is_no_transformer_is_told():
    given = setting(student=torch.nn.Linear(3, 2), data=task())
    with pytest.raises(GraphError, match="no list of blocks"):
        taught(given, "pkd")


def test_models_of_other_kinds_teach_one_another():
    """RoBERTa to DistilBERT's blocks: names differ, tokens and width do not."""
    given = setting(bert(4, kind="roberta"), bert(2, kind="distilbert", dropout=0.0))
    made = taught(given, "pkd")
    history = carried_out(given, made)[0]
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]


@pytest.mark.parametrize("method", ["tinybert", "minilm", "distilbert", "pkd"])
def test_a_student_of_shared_layers_is_told_what_to_use(method):
    config = transformers.AlbertConfig(**SIZES, **TEXT, num_hidden_layers=4, embedding_size=16, num_labels=2)
    student = transformers.AlbertForSequenceClassification(config).eval()
    with pytest.raises(LianzhiError, match="use the method kd, or an architecture without shared layers"):
        taught(setting(student=student), method)
