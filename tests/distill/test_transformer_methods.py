"""The methods pkd, minilm and distilbert on tiny transformers."""

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
from lessons import CASES, STILL, carried_out, of_teacher_layers, setting, task, taught
from safetensors.torch import load_file
from small_transformers import bert
from torch.nn import functional

from lianzhi import train
from lianzhi.distill.capture import capture
from lianzhi.distill.methods.teacher import Logits
from lianzhi.distill.transformer import layers_of
from lianzhi.errors import DataError, GraphError, RecipeError
from lianzhi.tasks import Batch

transformers = pytest.importorskip("transformers")


def first_batch(given) -> Batch:
    return next(iter(given.task.batches("train", 8)))


def seen_inside(model, batch, layers):
    with capture(model, layers, attention=layers) as seen, torch.no_grad():
        outputs = model(**batch.inputs)
    return outputs.logits, seen


def soft_by_hand(student, teacher, temperature):
    p, q = ((x.double() / temperature).softmax(-1).numpy() for x in (teacher, student))
    return temperature**2 * (p * np.log(p / q)).sum(-1).mean()


def terms_of(result):
    return {name: float(value) for name, value in result["terms"].items()}


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


def test_pkd_by_hand():
    given = setting()
    batch = first_batch(given)
    result = (
        taught(given, "pkd", alpha=0.2, temperature=10.0, patience=50.0).stages[0].step(given.student, batch)
    )
    student, seen = seen_inside(given.student, batch, layers_of(given.student))
    teacher, theirs = seen_inside(given.teacher, batch, layers_of(given.teacher))
    one, other = (
        side[name][:, 0].double().numpy()
        for side, name in ((seen, layers_of(given.student)[0]), (theirs, layers_of(given.teacher)[1]))
    )
    one, other = (item / np.linalg.norm(item, axis=1, keepdims=True) for item in (one, other))
    terms = terms_of(result)
    assert terms["patience"] == pytest.approx(((one - other) ** 2).mean(), rel=1e-5)
    assert terms["patience_weighted"] == pytest.approx(50 * terms["patience"])
    assert terms["soft_weighted"] == pytest.approx(0.2 * soft_by_hand(student, teacher, 10), rel=1e-3)
    hard = functional.cross_entropy(student, batch.labels).item()
    assert terms["hard_weighted"] == pytest.approx(0.8 * hard, rel=1e-5)


def test_pkd_over_all_tokens_of_all_layers():
    given = setting()
    batch = first_batch(given)
    step = taught(given, "pkd", map="uniform", tokens="all").stages[0].step
    _, seen = seen_inside(given.student, batch, layers_of(given.student))
    _, theirs = seen_inside(given.teacher, batch, layers_of(given.teacher))
    values = []
    for one, other in ((0, 1), (1, 3)):
        pair = [
            seen[layers_of(given.student)[one]].double().numpy(),
            theirs[layers_of(given.teacher)[other]].double().numpy(),
        ]
        a, b = (item / np.linalg.norm(item, axis=-1, keepdims=True) for item in pair)
        samples = [
            ((a - b) ** 2)[row, : int(batch.inputs["attention_mask"][row].sum())].mean() for row in range(8)
        ]
        values.append(np.mean(samples))
    assert terms_of(step(given.student, batch))["patience"] == pytest.approx(np.mean(values), rel=1e-4)


def test_pkd_without_lengths_of_one():
    given = setting()
    batch = first_batch(given)
    pairs = [[0, 0], [1, 2], [2, 4]]
    step = taught(given, "pkd", map=pairs, tokens="all", normalize=False).stages[0].step
    names = [["bert.embeddings", *layers_of(model)] for model in (given.student, given.teacher)]
    with capture(given.student, names[0]) as seen, torch.no_grad():
        given.student(**batch.inputs)
    with capture(given.teacher, names[1]) as theirs, torch.no_grad():
        given.teacher(**batch.inputs)
    mask = batch.inputs["attention_mask"]
    values = []
    for one, other in pairs:
        squares = (seen[names[0][one]] - theirs[names[1][other]]).square().mean(-1)
        values.append(((squares * mask).sum(1) / mask.sum(1)).mean().item())
    assert terms_of(step(given.student, batch))["patience"] == pytest.approx(np.mean(values), rel=1e-5)


def test_pkd_of_the_teachers_own_first_layers_begins_with_no_patience_lost():
    teacher = bert(4, seed=1, **STILL)
    given = setting(teacher, of_teacher_layers(teacher, [1, 2]))
    step = taught(given, "pkd", map=[1, 2]).stages[0].step
    assert terms_of(step(given.student, first_batch(given)))["patience"] == pytest.approx(0, abs=1e-12)


def test_minilm_relations_by_hand():
    given = setting(hidden_size=24, num_attention_heads=3)
    batch = first_batch(given)
    terms = terms_of(taught(given, "minilm").stages[0].step(given.student, batch))
    sides = [(model, layers_of(model)[-1]) for model in (given.student, given.teacher)]
    seen = [(seen_inside(model, batch, [layer])[1], layer) for model, layer in sides]
    for name in ("query", "key", "value"):
        method = {"query": "queries", "key": "keys", "value": "values"}[name]
        parts = [getattr(one, method)(layer).double() for one, layer in seen]
        flat = [part.transpose(1, 2).flatten(2).numpy() for part in parts]  # 24 and 32 wide: 8 heads
        samples = []
        for row in range(8):
            tokens = int(batch.inputs["attention_mask"][row].sum())
            found = []
            for head in range(8):
                probabilities = []
                for item, size in zip(flat, (3, 4), strict=True):
                    part = item[row, :tokens, head * size : (head + 1) * size]
                    scores = torch.from_numpy(part @ part.T / np.sqrt(size))
                    probabilities.append(scores.softmax(-1).numpy())
                q, p = probabilities
                found.append((p * np.log(p / q)).sum(-1).mean())
            samples.append(np.mean(found))
        assert terms[name] == pytest.approx(np.mean(samples), rel=1e-4), name


def test_minilm_has_two_stages_and_the_first_trains_no_head():
    given = setting()
    made = taught(given, "minilm", student_layer=1, teacher_layer=3)
    assert [(stage.name, stage.choose) for stage in made.stages] == [
        ("relations", False),
        ("prediction", True),
    ]
    made.stages[0].step(given.student, first_batch(given))["loss"].backward()
    touched = {name for name, parameter in given.student.named_parameters() if parameter.grad is not None}
    assert touched
    assert all(name.startswith(("bert.embeddings", "bert.encoder.layer.0")) for name in touched)
    given.student.zero_grad()
    batch = first_batch(given)
    with torch.no_grad():
        last = made.stages[1].step(given.student, batch)
        wanted = functional.cross_entropy(given.student(**batch.inputs).logits, batch.labels)
        taught_too = taught(given, "minilm", alpha=0.3, temperature=3.0).stages[1].step(given.student, batch)
        soft = soft_by_hand(*(model(**batch.inputs).logits for model in (given.student, given.teacher)), 3.0)
    torch.testing.assert_close(last["loss"], wanted)
    assert taught_too["loss"].item() == pytest.approx(0.7 * wanted.item() + 0.3 * soft, rel=1e-3)


def test_minilm_relates_the_texts_of_a_corpus(tmp_path, monkeypatch):
    from tiny_corpus import VOCABULARY, sentences, write_tokenizer

    import lianzhi as lz
    from lianzhi.tasks.text_preprocess import TextPreprocess

    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path / "cache"))
    (tmp_path / "some.txt").write_text("\n".join(sentences(40, 0)))
    reads = TextPreprocess.open(str(write_tokenizer(tmp_path / "bert")), max_length=16)
    inputs, labels = lessons.texts(8)
    data = lz.Task(train=[(inputs, labels)], num_classes=2, preprocess=reads)
    given = setting(bert(3, seed=1), bert(2, seed=2), data)
    corpus = {"data": str(tmp_path / "some.txt"), "masked": 0, "fill": False}
    relations, prediction = taught(given, "minilm", corpus=corpus).stages
    assert prediction.task is None
    made = relations.task()
    assert made is relations.task()
    assert len(VOCABULARY) <= 30
    batch = next(iter(made.batches("train", 4)))
    assert not (batch.inputs["input_ids"] == 4).any(), "words are masked"
    history = train.fit(
        given.student,
        made,
        train.TrainOptions(epochs=3, lr=3e-3, optimizer="adamw"),
        step=relations.step,
        progress=False,
    )
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
    with pytest.raises(RecipeError, match="is not of texts; leave the corpus out"):
        taught(setting(), "minilm", corpus=corpus)
    with pytest.raises(DataError, match="nowhere"):
        taught(given, "minilm", corpus={"data": str(tmp_path / "nowhere")})


def test_minilm_of_a_vision_transformer():
    torch.manual_seed(0)
    images, labels = torch.randn(8, 3, 12, 12), torch.arange(8) % 2
    import lianzhi as lz

    data = lz.Task(train=[({"pixel_values": images}, labels)], num_classes=2)
    given = setting(bert(3, kind="vit"), bert(2, kind="vit", seed=3), data)
    made = taught(given, "minilm", version=1)
    history = carried_out(given, made)[0]
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]


def test_distilbert_by_hand():
    given = setting()
    batch = first_batch(given)
    terms = terms_of(taught(given, "distilbert").stages[0].step(given.student, batch))
    student, seen = seen_inside(given.student, batch, layers_of(given.student)[-1:])
    teacher, theirs = seen_inside(given.teacher, batch, layers_of(given.teacher)[-1:])
    one, other = (
        side[layers_of(model)[-1]].double()
        for side, model in ((seen, given.student), (theirs, given.teacher))
    )
    angles = (one * other).sum(-1) / one.norm(dim=-1) / other.norm(dim=-1)
    mask = batch.inputs["attention_mask"]
    wanted = (((1 - angles) * mask).sum(1) / mask.sum(1)).mean().item()
    assert terms["cosine"] == pytest.approx(wanted, rel=1e-5)
    assert terms["cosine_weighted"] == terms["cosine"]
    assert terms["soft_weighted"] == pytest.approx(5 * soft_by_hand(student, teacher, 2), rel=1e-4)
    hard = functional.cross_entropy(student, batch.labels).item()
    assert terms["hard_weighted"] == pytest.approx(2 * hard, rel=1e-5)


def masked_model(layers, seed):
    config = transformers.BertConfig(
        **{"vocab_size": 30, "hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 4},
        **{"intermediate_size": 48, "max_position_embeddings": 40, **STILL},
    )
    torch.manual_seed(seed)
    return transformers.BertForMaskedLM(config)


def test_distilbert_on_a_corpus_is_the_triple_loss():
    """Masked words as labels, the vocabulary as classes; padding counts nowhere."""
    import lianzhi as lz
    from lianzhi.tasks.corpus.objective import corpus_loss, masked_accuracy

    inputs, _ = lessons.texts(8)
    labels = inputs["input_ids"].masked_fill(torch.rand(8, 9) > 0.4, -100)
    labels[:, 1] = inputs["input_ids"][:, 1]
    labels[inputs["attention_mask"] == 0] = -100
    data = lz.Task(train=[(inputs, labels)], loss=corpus_loss, metrics={"masked_accuracy": masked_accuracy})
    given = setting(masked_model(3, 1), masked_model(2, 2), data)
    made = taught(given, "distilbert")
    batch = first_batch(given)
    terms = terms_of(made.stages[0].step(given.student.eval(), batch))
    with torch.no_grad():
        student, teacher = (model.eval()(**batch.inputs).logits for model in (given.student, given.teacher))
    samples, hard = [], []
    for row in range(8):
        tokens = int(batch.inputs["attention_mask"][row].sum())
        samples.append(soft_by_hand(student[row, :tokens], teacher[row, :tokens], 2))
        hard.append(functional.cross_entropy(student[row], batch.labels[row]).item())
    assert terms["soft"] == pytest.approx(np.mean(samples), rel=1e-4)
    assert terms["hard"] == pytest.approx(np.mean(hard), rel=1e-5)
    history = carried_out(given, made)[0]
    assert history.epochs[-1]["loss"] < 0.9 * history.epochs[0]["loss"]
    without = taught(given, "distilbert", hard=0, cosine=0).stages[0].step(given.student, batch)
    assert sorted(without["terms"]) == ["soft", "soft_weighted"]


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
