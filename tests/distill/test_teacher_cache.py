"""The teacher's logits on file: right for every sample, refused where they would be another's, made once."""

import numpy as np
import pytest
import torch
from torch import nn

import lianzhi as lz
from lianzhi import files
from lianzhi.distill.methods import Logits
from lianzhi.distill.methods.teacher import teacher_logits
from lianzhi.distill.teacher_cache import kept, kept_of
from lianzhi.errors import ArtifactError, DataError, RecipeError


@pytest.fixture(scope="module")
def task():
    return lz.task("synthetic", samples=64, classes=7, shape=(3, 4, 4))


def teacher(classes=7):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, classes), nn.Dropout(0.5))


def test_every_sample_has_its_own(task, tmp_path):
    model = teacher()
    found = kept(model, task, tmp_path, batch_size=10, progress=False)
    for batch in task.batches("train", 9, epoch=3, seed=5):
        expected = teacher_logits(model, batch.inputs)
        assert torch.allclose(found.logits(batch.ids), expected, atol=2e-3)
    assert model.training


def test_it_is_made_once(task, tmp_path):
    model = teacher()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    first = kept(model, task, tmp_path, batch_size=16, progress=False)
    made = len(calls)
    second = kept(model, task, tmp_path, batch_size=16, progress=False)
    assert made == task.steps("train", 16) == len(calls) - 1, "and a few samples are asked for again"
    assert torch.equal(first.values, second.values)
    batch = next(iter(task.batches("train", 8, epoch=0)))
    source = Logits(model, lambda: kept(model, task, tmp_path, batch_size=16, progress=False))
    assert torch.equal(source(batch, torch.device("cpu")), first.logits(batch.ids))
    assert len(calls) == made + 2


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("top_k", [None, 3])
def test_the_same_weights_may_be_another_teacher(task, tmp_path, named, top_k):
    """Of which a digest of the tensors says nothing."""
    torch.manual_seed(2)
    layers = nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 7)
    one, other = nn.Sequential(*layers), nn.Sequential(*layers[:2], nn.Tanh(), layers[3])
    how = {"named": named, "top_k": top_k, "progress": False}
    first = kept(one, task, tmp_path, **how)
    with pytest.raises(ArtifactError, match="of another teacher, of the same weights: sample"):
        kept(other, task, tmp_path, **how)
    assert torch.equal(kept(one, task, tmp_path, **how).values, first.values)


def test_another_teacher_has_another_file(task, tmp_path):
    kept(teacher(), task, tmp_path, progress=False)
    other = teacher()
    with torch.no_grad():
        other[1].weight[0, 0] += 1e-3
    kept(other, task, tmp_path, progress=False)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda model, task: (model.get_parameter("1.bias").data.add_(1), task)[1], "another teacher"),
        (
            lambda model, task: lz.task("synthetic", samples=64, classes=7, shape=(3, 4, 4), data_seed=9),
            "another task",
        ),
    ],
)
def test_a_file_of_one_s_own_that_does_not_match_is_refused(task, tmp_path, change, match):
    model = teacher()
    kept(model, task, tmp_path, named=False, progress=False)
    with pytest.raises(ArtifactError, match=match):
        kept(model, change(model, task), tmp_path, named=False, progress=False)


def test_the_largest_k_and_the_mass_of_the_others(task, tmp_path):
    model = teacher()
    found = kept(model, task, tmp_path, top_k=3, progress=False)
    batch = next(iter(task.batches("train", 64)))
    whole = teacher_logits(model, batch.inputs).double().numpy()
    got = found.logits(batch.ids).double().numpy()
    probabilities = np.exp(whole) / np.exp(whole).sum(1, keepdims=True)
    ours = np.exp(got) / np.exp(got).sum(1, keepdims=True)
    for row in range(len(whole)):
        top = np.argsort(-probabilities[row])[:3]
        others = np.setdiff1d(np.arange(7), top)
        np.testing.assert_allclose(ours[row, top], probabilities[row, top], atol=2e-3)
        np.testing.assert_allclose(ours[row, others], probabilities[row, others].mean(), atol=2e-3)
    assert found.values.shape == (task.size("train"), 3)


def test_augmented_images_are_refused(tmp_path):
    task = lz.task("synthetic", samples=64, classes=7, shape=(3, 4, 4), padding=1)
    kept(teacher(), task, tmp_path, augment=False, progress=False)
    with pytest.raises(RecipeError, match="augment: false"):
        kept(teacher(), task, tmp_path, augment=True, progress=False)
    loader = lz.Task(train=[(torch.zeros(2, 48), torch.zeros(2, dtype=torch.long))])
    with pytest.raises(RecipeError, match="augment: false"):
        kept(teacher(2), loader, tmp_path, progress=False)


def test_a_damaged_file_is_told(task, tmp_path):
    model = teacher()
    kept(model, task, tmp_path, named=False, progress=False)
    file = tmp_path / "teacher.safetensors"
    whole = files.read_tensors(file)
    files.write_tensors(file, {**whole, "values": whole["values"][:5]})
    with pytest.raises(ArtifactError, match="damaged"):
        kept(model, task, tmp_path, named=False, progress=False)
    changed = whole["values"].clone()
    changed[3, 1] += 0.5
    files.write_tensors(file, {**whole, "values": changed})
    with pytest.raises(ArtifactError, match=r"damaged .its numbers are not those that were written"):
        kept(model, task, tmp_path, named=False, progress=False)
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ArtifactError):
        kept(model, task, tmp_path, named=False, progress=False)


def test_logits_that_half_precision_does_not_hold():
    for bad in (torch.tensor([[7e4, 0.0]]), torch.tensor([[float("nan"), 0.0]])):
        with pytest.raises(DataError, match="without the cache"):
            kept_of(bad)
