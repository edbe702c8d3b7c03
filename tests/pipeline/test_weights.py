"""Which weights a step of Deep Compression prunes and shares."""

import warnings

import pytest
from torch import nn

import lianzhi as lz
from lianzhi.codebook.masks import weights_of
from lianzhi.errors import GraphError
from lianzhi.pipeline.weights import compressible

TRAIN = lz.Train(epochs=1, batch_size=32, lr=0.01, optimizer="sgd", augment=False, keep="last")
QUICK = lz.Measure(batches=(1,), repeats=1, threads=1)


@pytest.fixture(scope="module")
def task():
    return lz.task("synthetic", samples=64, classes=3, shape=(3, 4, 4))


class Tied(nn.Module):
    """Two layers of one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.middle = nn.Linear(48, 48, bias=False), nn.ReLU()
        self.second, self.last = nn.Linear(48, 48, bias=False), nn.Linear(48, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.last(self.second(self.middle(self.first(x.flatten(1)))))


def compress(model, task, steps, out):
    options = {"target": "pytorch", "output": out, "measure": QUICK, "progress": False}
    return lz.compress(model.eval(), task, steps, **options)


@pytest.mark.parametrize("ignore", ["first", "second", "sec*", "second.weight"])
def test_a_tied_weight_is_left_out_by_any_of_its_names(ignore):
    assert list(compressible(Tied(), (ignore,))) == ["last.weight"]


def test_a_tied_weight_is_pruned_and_shared_by_any_of_its_names(task, tmp_path):
    pruned = lz.Prune(granularity="weight", ratio=0.5, ignore=("second",))
    weights = weights_of(compress(Tied(), task, [pruned], tmp_path / "pruned").model)
    assert bool((weights["first.weight"] != 0).all())
    assert int((weights["last.weight"] == 0).sum()) == 72
    shared = lz.ShareWeights(bits={"second": 3}, epochs=0)
    weights = weights_of(compress(Tied(), task, [shared], tmp_path / "shared").model)
    assert len(weights["first.weight"].unique()) <= 7
    assert len(weights["last.weight"].unique()) > 7


def flat(layer):
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), nn.Linear(48, 3))


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        (nn.utils.parametrizations.weight_norm, r"prune: '1\.parametrizations\.weight' has parametrizations"),
        (nn.utils.weight_norm, "prune: the weight of '1' is computed by WeightNorm"),
        (nn.utils.spectral_norm, "prune: the weight of '1' is computed by SpectralNorm"),
    ],
)
@pytest.mark.parametrize("granularity", ["weight", "2:4"])
def test_weights_that_are_computed_are_not_pruned(task, tmp_path, norm, message, granularity):
    """A removed scale of weight_norm would take a whole neuron."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = flat(norm(nn.Linear(48, 48)))
    options = {"ratio": 0.8} if granularity == "weight" else {}
    with pytest.raises(GraphError, match=message):
        compress(model, task, [lz.Prune(granularity=granularity, **options)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_are_computed_may_be_left_out(task, tmp_path):
    model = flat(nn.utils.parametrizations.weight_norm(nn.Linear(48, 48)))
    step = lz.Prune(granularity="weight", ratio=0.5, ignore=("1",))
    pruned = compress(model, task, [step], tmp_path / "out").model.get_parameter("3.weight")
    assert int((pruned == 0).sum()) == 72


class Table(nn.Module):
    """A table whose gradients are sparse."""

    def __init__(self, trains):
        super().__init__()
        self.table, self.last = nn.Embedding(16, 4, sparse=True), nn.Linear(48 * 4, 3)
        self.table.weight.requires_grad_(trains)

    def forward(self, x):
        return self.last(self.table((x.flatten(1) * 4).long().clamp(0, 15)).flatten(1))


def test_a_table_of_sparse_gradients_is_refused_before_the_run(task, tmp_path):
    steps = [TRAIN, lz.Prune(granularity="weight", ratio=0.5)]
    with pytest.raises(
        GraphError, match=r"steps\.1 \(prune\): .*'table\.weight' is of a table with sparse=True"
    ):
        compress(Table(trains=True), task, steps, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_frozen_table_of_sparse_gradients_is_pruned(task, tmp_path):
    steps = [TRAIN, lz.Prune(granularity="weight", ratio=0.5), TRAIN]
    weights = weights_of(compress(Table(trains=False), task, steps, tmp_path / "out").model)
    assert sum(int((weight == 0).sum()) for weight in weights.values()) == (64 + 576) // 2
