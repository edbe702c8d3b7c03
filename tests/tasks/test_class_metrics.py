"""Metrics of a whole split against scikit-learn and SciPy, and their bounds."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as oracle

from lianzhi import measure
from lianzhi.errors import DataError
from lianzhi.tasks import Task, confusion, correlations
from lianzhi.tasks.outputs import score_loss


def samples(classes, count=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator)
    labels = torch.randint(classes, (count,), generator=generator)
    logits[torch.arange(count), labels] += 0.7
    return logits, labels


@pytest.mark.parametrize("seed", range(5))
def test_of_two_classes(seed):
    logits, labels = samples(2, seed=seed)
    guess = logits.argmax(1)
    assert confusion.precision(logits, labels) == pytest.approx(oracle.precision_score(labels, guess))
    assert confusion.recall(logits, labels) == pytest.approx(oracle.recall_score(labels, guess))
    assert confusion.f1(logits, labels) == pytest.approx(oracle.f1_score(labels, guess))
    assert confusion.matthews(logits, labels) == pytest.approx(oracle.matthews_corrcoef(labels, guess))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_of_many_classes(classes):
    logits, labels = samples(classes)
    labels[labels == classes - 1] = 0  # one class is only ever predicted
    guess = logits.argmax(1)
    options = {"average": "macro", "zero_division": 0}
    assert confusion.macro_precision(logits, labels) == pytest.approx(
        oracle.precision_score(labels, guess, **options)
    )
    assert confusion.macro_recall(logits, labels) == pytest.approx(
        oracle.recall_score(labels, guess, **options)
    )
    assert confusion.macro_f1(logits, labels) == pytest.approx(oracle.f1_score(labels, guess, **options))
    assert confusion.matthews(logits, labels) == pytest.approx(oracle.matthews_corrcoef(labels, guess))
    assert confusion.confusion(logits, labels).tolist() == oracle.confusion_matrix(labels, guess).tolist()


def test_what_is_a_share_of_nothing_is_0():
    never, labels = torch.eye(2)[[0, 0, 0]], torch.tensor([0, 1, 1])
    values = [metric(never, labels) for metric in confusion.class_metrics(2).values()]
    assert values == [pytest.approx(1 / 3), 0, 0, 0, 0]
    assert confusion.f1(never, torch.zeros(3, dtype=torch.long)) == 0


def test_matthews_of_400_000_samples_is_exact():
    labels = torch.arange(400_000) % 2
    assert confusion.matthews(torch.eye(2)[labels], labels) == pytest.approx(1, abs=1e-12)
    assert confusion.matthews(torch.eye(2)[1 - labels], labels) == pytest.approx(-1, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_correlations(seed):
    draw = np.random.default_rng(seed)
    true = (draw.integers(0, 26, 300) / 5).astype(np.float32)  # many equal ones, as in STS-B
    given = (true + draw.normal(size=300)).round(1).astype(np.float32)
    outputs, scores = torch.from_numpy(given)[:, None], torch.from_numpy(true)
    wanted = stats.pearsonr(given.astype(np.float64), true.astype(np.float64))[0]
    assert correlations.pearson(outputs, scores) == pytest.approx(wanted, abs=1e-9)
    assert correlations.spearman(outputs, scores) == pytest.approx(stats.spearmanr(given, true)[0], abs=1e-9)
    assert correlations.ranks(scores).tolist() == stats.rankdata(true).tolist()


def test_outputs_that_are_all_alike_have_no_correlation():
    scores = torch.tensor([1.0, 2.0, 3.0])
    assert correlations.pearson(torch.full((3, 1), 2.5), scores) == 0
    assert correlations.spearman(torch.full((3, 1), 2.5), scores) == 0
    half = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.bfloat16)
    assert correlations.pearson(half, scores) == pytest.approx(1)


def test_a_score_is_one_number():
    with pytest.raises(DataError, match=r"shape \(3, 2\), and a score is one number .*num_classes=1"):
        correlations.pearson(torch.zeros(3, 2), torch.zeros(3))
    with pytest.raises(DataError, match="num_classes=1"):
        score_loss(torch.zeros(3), torch.zeros(3))
    outputs = torch.tensor([[300.0], [-300.0]], dtype=torch.float16)
    assert score_loss(outputs, torch.zeros(2)).item() == 90_000  # over float16's largest number


class Echo(torch.nn.Module):
    """What goes in comes out."""

    def forward(self, inputs):
        return inputs


@pytest.mark.parametrize(("name", "of"), [("f1", confusion.f1), ("matthews", confusion.matthews)])
@pytest.mark.parametrize("deployed", [False, True])
def test_an_evaluation_is_of_the_whole_split_not_a_mean_of_batches(name, of, deployed):
    logits, labels = samples(2, count=50)
    batches = [(logits[at : at + 8], labels[at : at + 8]) for at in range(0, 50, 8)]
    task = Task(test=batches, metrics={name: of}, labels=["no", "yes"])
    echo = (lambda inputs: inputs) if deployed else Echo()  # a session is a function of inputs
    found = measure.evaluate(echo, task)
    assert (found.metric, found.samples) == (name, 50)
    assert found.value == pytest.approx(of(logits, labels), abs=1e-12)
    assert abs(found.value - np.mean([of(*batch) for batch in batches])) > 0.005


def test_a_score_s_correlation_is_of_the_whole_split():
    draw = torch.Generator().manual_seed(0)
    scores = torch.rand(30, generator=draw)
    outputs = scores[:, None] + 0.5 * torch.rand(30, 1, generator=draw)
    batches = [(outputs[at : at + 4], scores[at : at + 4]) for at in range(0, 30, 4)]
    task = Task(test=batches, loss=score_loss, metrics=correlations.score_metrics(), num_classes=1)
    assert task.scores
    assert "a score" in repr(task)
    found = measure.evaluate(Echo(), task)
    assert found.metrics["pearson"] == pytest.approx(np.corrcoef(outputs[:, 0], scores)[0, 1], abs=1e-6)
    assert found.metrics["spearman"] == pytest.approx(stats.spearmanr(outputs[:, 0], scores)[0], abs=1e-9)
