"""The embeddings with which a student of `mobilebert` begins, where its norms are of another type than the teacher's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lessons import setting, taught
from test_mobilebert_method import STUDENT, TEACHER, batch_of, classifier
from tiny_corpus import write_texts
from tiny_texts import tiny_task

from lianzhi.distill.capture import capture

pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path_factory.mktemp("cache")))


def embedded(given, batch):
    found = []
    for model in (given.student, given.teacher):
        with capture(model, ["mobilebert.embeddings"]) as seen, torch.no_grad():
            model.eval()(**batch.inputs)
        found.append(seen["mobilebert.embeddings"][batch.inputs["attention_mask"].bool()].double())
    return found


def pair(tmp_path, teacher="layer_norm", student="no_norm"):
    given = setting(
        classifier(TEACHER, 1, normalization_type=teacher),
        classifier(STUDENT, 2, normalization_type=student),
        tiny_task(tmp_path),
    )
    with torch.no_grad():
        for name in ("word", "position", "token_type"):  # as small as tables begin
            getattr(given.teacher.mobilebert.embeddings, f"{name}_embeddings").weight *= 0.2
    return given


def test_the_student_begins_near_the_teacher(tmp_path):
    given = pair(tmp_path)
    taught(given, "mobilebert").stages[0].prepare()
    batch = batch_of(given.task, 32)
    one, other = embedded(given, batch)
    assert one.std().item() == pytest.approx(other.std().item(), rel=0.15)
    near = (one - other).square().mean() / other.var()
    own, theirs = given.student.mobilebert.embeddings, given.teacher.mobilebert.embeddings
    own.LayerNorm.load_state_dict(theirs.LayerNorm.state_dict())
    copied, _ = embedded(given, batch)
    assert near < 0.2
    assert (copied - other).square().mean() / other.var() > 0.5
    for name in (
        "word_embeddings",
        "position_embeddings",
        "token_type_embeddings",
        "embedding_transformation",
    ):
        assert torch.equal(getattr(own, name).weight, getattr(theirs, name).weight)


def test_no_other_line_is_nearer(tmp_path):
    """Least squares by NumPy on what goes in and what comes out, padding left out."""
    given = pair(tmp_path)
    taught(given, "mobilebert").stages[0].prepare()
    norm = "mobilebert.embeddings.LayerNorm"
    seen = []
    hook = given.teacher.get_submodule(norm).register_forward_hook(lambda _, x, y: seen.append((x[0], y)))
    batch = batch_of(given.task, 32)
    embedded(given, batch)
    hook.remove()
    mask = batch.inputs["attention_mask"].bool()
    x, y = (value[mask].double().numpy() for value in seen[0])
    found = given.student.get_submodule(norm)
    for channel in range(x.shape[1]):
        columns = np.stack([x[:, channel], np.ones(len(x))], axis=1)
        wanted = np.linalg.lstsq(columns, y[:, channel], rcond=None)[0]
        line = [value[channel].item() for value in (found.weight, found.bias)]
        assert line == pytest.approx(wanted, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(("teacher", "student"), [("no_norm", "layer_norm"), ("layer_norm", "layer_norm")])
def test_a_layer_norm_is_copied_from_its_like_alone(tmp_path, teacher, student):
    given = pair(tmp_path, teacher, student)
    norms = [model.mobilebert.embeddings.LayerNorm for model in (given.student, given.teacher)]
    before = norms[0].weight.clone()
    taught(given, "mobilebert").stages[0].prepare()
    kept = before if teacher != student else norms[1].weight
    assert torch.equal(norms[0].weight, kept)
    assert not torch.equal(before, norms[1].weight)


def test_the_texts_are_those_of_the_stage(tmp_path):
    corpus = {"data": str(write_texts(tmp_path / "corpus", documents=4)), "max_length": 32}
    given = pair(tmp_path)
    weights = []
    for options in ({}, {"corpus": corpus}):
        taught(given, "mobilebert", **options).stages[0].prepare()
        weights.append(given.student.mobilebert.embeddings.LayerNorm.weight.detach().clone())
    assert not torch.equal(*weights)
