"""Texts that a method reads or makes beside the task's own: no longer than the positions of teacher and student."""

from __future__ import annotations

import copy

import pytest
from lessons import STILL, carried_out, setting, taught
from small_transformers import bert
from test_mobilebert_method import STUDENT, TEACHER, classifier, masked_lm
from tiny_corpus import VOCABULARY, WORDS, write_masked_lm, write_texts
from tiny_texts import tiny_task

import lianzhi as lz
from lianzhi.distill.lengths import fitted, fitting
from lianzhi.errors import DataError
from lianzhi.pipeline.distilling import check_distill, run_distill
from lianzhi.pipeline.state import Run, State
from lianzhi.pipeline.store import Store
from lianzhi.pipeline.texts import check_texts
from lianzhi.recipe import Recipe

pytest.importorskip("transformers")

MINI = {"vocab_size": len(VOCABULARY), **STILL}
SHORT = [f"{one} {two} {three}" for one in WORDS[:4] for two in WORDS[4:9] for three in WORDS[9:11]]
MAKING = {"words": "vectors", "copies": 3, "candidates": 2, "probability": 1.0}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def task(tmp_path):
    """Texts of five tokens, where 128 are asked for."""
    return tiny_task(tmp_path, SHORT, max_length=128)


def both(task, *, teacher: int, student: int):
    """A teacher and a student of so many positions."""
    return setting(
        bert(4, seed=1, **MINI, max_position_embeddings=teacher),
        bert(2, seed=2, **MINI, max_position_embeddings=student),
        task,
    )


def longest(task) -> int:
    """Tokens of the longest batch of the training part."""
    return max(batch.inputs["input_ids"].shape[1] for batch in task.batches("train", 4, epoch=0))


class TestFitted:
    @pytest.mark.parametrize(("positions", "most"), [((40, 64), 40), ((64, 33), 33), ((256, 130), 128)])
    def test_the_fewest_positions_decide(self, task, positions, most):
        models = [bert(1, **MINI, max_position_embeddings=count) for count in positions]
        assert fitted(task, *models).max_length == most
        assert fitted(task, *models, longest=20).max_length == 20
        assert fitted(task, *models, longest=200).max_length == min(200, *positions)
        assert (fitting(task, *models) is task) == (most == 128)

    def test_texts_longer_than_the_positions_are_cut(self, task):
        model = bert(1, **MINI, max_position_embeddings=4)
        with pytest.raises(lz.DataError, match="the longest text, of 5 tokens"):
            check_texts(task, model, "the model")
        check_texts(fitting(task, model), model, "the model")

    def test_a_task_that_is_not_of_texts_stays(self):
        images = lz.task("synthetic", samples=20)
        assert fitted(images, bert(1)) is None
        assert fitting(images, bert(1)) is images


@pytest.mark.parametrize(("teacher", "student", "most"), [(24, 64, 24), (64, 24, 24), (64, 64, 48)])
@pytest.mark.parametrize(("method", "name"), [("tinybert", "general"), ("minilm", "corpus")])
def test_a_corpus(task, tmp_path, method, name, teacher, student, most):
    corpus = {"data": str(write_texts(tmp_path / "corpus", documents=2)), "limit": 8}
    corpus |= {"max_length": 48} if most == 48 else {}
    given = both(task, teacher=teacher, student=student)
    made = taught(given, method, **{name: corpus})
    assert made.notes == []
    assert most - 12 < longest(made.stages[0].task()) <= most
    fewer = f"texts of the corpus have at most {most} tokens, not 128: a model has no positions for more"
    assert made.notes == ([] if most == 48 else [fewer])
    carried_out(given, made, epochs=1)
    made.stages[0].task()
    assert len(made.notes) <= 1  # told once


def test_sentences_that_are_cut_are_counted(task, tmp_path):
    file = tmp_path / "corpus.txt"
    file.write_text("a film\nthe plot\n" + " ".join(WORDS * 2) + "\n")
    made = taught(both(task, teacher=24, student=24), "minilm", corpus={"data": str(file)})
    made.stages[0].task()
    assert made.notes[1:] == ["1 of 2 texts of the corpus are longer than 24 tokens and were cut"]


def test_a_teacher_of_the_corpus_alone(tmp_path):
    """It need not read the task's own texts, of 21 tokens."""
    positions, task = 16, tiny_task(tmp_path, [f"{text} " * 6 for text in SHORT], max_length=128)
    corpus = {"data": str(write_texts(tmp_path / "corpus", documents=2)), "limit": 8}
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": positions}
    general = {**corpus, "teacher": str(write_masked_lm(tmp_path / "lm", **sizes))}
    given = both(task, teacher=64, student=64)
    made = taught(given, "tinybert", general=general)
    assert positions - 12 < longest(made.stages[0].task()) <= positions
    carried_out(given, made, epochs=1)


def test_a_masked_lm(task, tmp_path):
    corpus = {"data": str(write_texts(tmp_path / "corpus", documents=2)), "limit": 8}
    given = setting(classifier(TEACHER, 1), classifier(STUDENT, 2), task)
    other = masked_lm(tmp_path / "lm", max_position_embeddings=24)
    made = taught(given, "mobilebert", corpus=corpus, masked_lm=other, copy_embeddings=False)
    assert longest(made.stages[0].task()) <= 24
    carried_out(given, made, epochs=1)
    assert [note for note in made.notes if "at most 24 tokens" in note]


def write_vectors(folder) -> str:
    """Words whose nearest one is of two tokens."""
    from lianzhi.distill.augmentation.words import STOP_WORDS

    words = [word for word in WORDS if word not in STOP_WORDS]
    lines = [
        f"{word}{end} {' '.join('1' if place == at else '0' for place in range(len(words)))}"
        for at, word in enumerate(words)
        for end in ("", "s", "ing")
    ]
    (folder / "vectors.txt").write_text("\n".join(lines) + "\n")
    return str(folder / "vectors.txt")


def test_augmented_texts_of_tinybert(task, tmp_path):
    given = both(task, teacher=6, student=40)
    check_texts(task, given.teacher, "the teacher")
    made = taught(given, "tinybert", augmentation={**MAKING, "vectors": write_vectors(tmp_path)})
    assert longest(made.stages[0].task()) == 6
    assert [note for note in made.notes if "texts of train are longer than 6 tokens and were cut" in note]
    carried_out(given, made, epochs=1)


def test_changed_texts_of_bilstm(task, tmp_path):
    tags = tmp_path / "tags"
    tags.mkdir()
    (tags / "ca01").write_text(" ".join(f"{word}/nn" for word in WORDS) + "\n")
    lines = [*SHORT, *(f"{word}s" for word in WORDS)]
    task = tiny_task(tmp_path / "task", lines, max_length=128)
    (tags / "ca02").write_text(" ".join(f"{word}s/nn" for word in WORDS) + "\n")
    given = setting(bert(2, seed=1, **MINI, max_position_embeddings=5), bert(2, seed=2, **MINI), task)
    making = {"tags": str(tags), "same_tag": 1.0, "mask": 0.0, "ngram": 0.0, "times": 3}
    sizes = {"width": 6, "hidden": 8, "linear": 8}
    made = taught(given, "bilstm", **sizes, augmentation=making)
    carried_out(given, made, epochs=1)
    assert [note for note in made.notes if "texts of train are longer than 5 tokens and were cut" in note]


def test_a_run_that_passes_its_check_does_not_end_at_a_long_text(task, tmp_path):
    given = both(task, teacher=24, student=24)
    options = {"corpus": {"data": str(write_texts(tmp_path / "corpus", documents=2)), "limit": 8}}
    step = lz.Distill(method="minilm", options=options, student={"layers": 2}, epochs=1, batch_size=16)
    run = Run(Recipe(steps=[step]), task, Store(tmp_path / "out"), progress=False)
    check_distill(run, State(given.teacher, given.teacher), step)
    state = State(copy.deepcopy(given.teacher), given.teacher)
    run_distill(run, state, step, tmp_path / "work", resume=False)
    assert [note for note in state.notes if "at most 24 tokens" in note]


@pytest.mark.parametrize("method", ["pkd", "minilm", "distilbert", "tinybert"])
def test_a_student_of_too_few_positions_is_refused_by_name(method):
    given = setting()
    given.student = bert(2, max_position_embeddings=3, **STILL)
    with pytest.raises(DataError, match=f"{method}: the student does not run on the task's example"):
        taught(given, method)
