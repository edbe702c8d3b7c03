"""The step `quantize: {method: qat}` in a run: trained once a grid, resumable, deployed as it was trained."""

from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import lianzhi as lz
from lianzhi import deploy, measure, quantize
from lianzhi.errors import DataError, RecipeError
from lianzhi.pipeline import finish, qat
from lianzhi.pipeline.state import State
from lianzhi.pipeline.steps import run_quantize
from lianzhi.recipe import parse
from lianzhi.recipe.qat import QAT

MEASURE = lz.Measure(batches=(1,), repeats=1, threads=1)
OPTIONS = {"measure": MEASURE, "progress": False, "precision": "int8"}


class Net(nn.Module):
    """A BatchNorm that stays, a convolution, a classifier."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.conv, self.head = nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.relu(self.conv(torch.relu(self.norm(x)))).mean((2, 3)))


@pytest.fixture(scope="module")
def task():
    return lz.task("synthetic", samples=256, classes=3, shape=(3, 8, 8))


def step(**options):
    return lz.Quantize(method="qat", calibration=32, **{"epochs": 2, "lr": 0.05, "batch_size": 64, **options})


def test_trained_for_each_grid_and_deployed(task, tmp_path):
    result = lz.compress(Net(), task, [step(channels=0.5)], output=tmp_path / "o", **OPTIONS)
    details = result.report.rows[-1]["details"]
    assert set(details["training"]) <= set(details["quantization"])
    assert len(details["training"]["onnxruntime"]["epochs"]) == 2
    assert result.report.decision["precision"] == "int8"
    inputs = torch.cat([batch.inputs for batch in task.batches("validation", 64)])
    runtime = result.report.decision["runtime"]
    found = deploy.load(tmp_path / "o" / "model.onnx", runtime=runtime, threads=1)(inputs)
    with torch.no_grad():
        expected = lz.load(tmp_path / "o")(inputs)
    assert (found.argmax(1) == expected.argmax(1)).float().mean() >= 0.99


def test_one_grid_is_trained_once(tmp_path, monkeypatch):
    inputs = torch.randn(8, 3, 8, 8)
    first, other = (quantize.quantize(Net().eval(), inputs[:1], [scale * inputs]) for scale in (1, 2))
    state = SimpleNamespace(quantized={"a": first, "b": first, "c": other})
    monkeypatch.setattr(qat, "_train", lambda *args, **options: (None, {}))
    done = qat.train_quantized(SimpleNamespace(leads=False), state, QAT(), tmp_path, resume=False)
    assert list(done) == ["a", "c"]


class Stop(Exception):
    pass


STEPS = [step(freeze_bn=1.0, keep="last", batch_size=32, save_every=1e-6)]
RUN = {"target": "onnxruntime", **OPTIONS}


@pytest.fixture(scope="module")
def whole(task, tmp_path_factory):
    """The weights of a run that nothing stops."""
    return lz.compress(Net(), task, STEPS, output=tmp_path_factory.mktemp("whole"), **RUN).model.state_dict()


@pytest.mark.parametrize("where", ["in training", "before the end"])
def test_a_stopped_run_ends_with_the_same_weights(task, whole, tmp_path, monkeypatch, where):
    calls = 0

    def stop(*args, **options):
        nonlocal calls
        calls += 1
        if where == "before the end" or calls == 9:  # of twelve updates; BatchNorm is frozen after six
            raise Stop
        return wrapped(*args, **options)

    with monkeypatch.context() as patch:
        if where == "in training":
            make, wrapped = qat._step, None

            def make_stopping(*args):
                nonlocal wrapped
                wrapped = make(*args)
                return stop

            patch.setattr(qat, "_step", make_stopping)
        else:
            patch.setattr(finish, "finish", stop)
        with pytest.raises(Stop):
            lz.compress(Net(), task, STEPS, output=tmp_path / "out", **RUN)
    again = lz.compress(Net(), task, STEPS, output=tmp_path / "out", resume=True, **RUN)
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(tensor, whole[name]), name
    assert "norm.running_mean" in whole


def alone(task, model, **recipe):
    """What a step sees of a run and of its state."""
    run = SimpleNamespace(
        task=task, leads=False, progress=False, recipe=SimpleNamespace(seed=0, device="cpu", **recipe)
    )
    notes = []
    return run, SimpleNamespace(
        model=model, quantized={}, notes=notes, note=notes.append, quantize=None, sparse=set()
    )


def test_calibration_is_kept_where_training_does_not_help(tmp_path):
    model, inputs = Net().eval(), torch.randn(64, 3, 8, 8)
    own = (inputs, model(inputs).argmax(1))
    wrong = lz.Task(
        train=[(inputs, torch.zeros(64, dtype=torch.long))], validation=[own], calibration=[own], test=[own]
    )
    run, state = alone(wrong, model)
    calibrated = quantize.quantize(model, inputs[:1], [inputs])
    state.quantized = {"onnxruntime": calibrated}
    options = QAT(distill=False, lr=0.5, epochs=1, batch_size=16)
    history = qat.train_quantized(run, state, options, tmp_path, resume=False)
    assert history["onnxruntime"]["before"] > history["onnxruntime"]["best_value"]
    assert state.quantized["onnxruntime"] is calibrated
    assert "did not help" in state.notes[0]


def test_options_are_written_beside_the_others():
    flat = lz.Quantize(method="qat", epochs=3, batch_size=16, lsq=False)
    assert flat.training == QAT(epochs=3, batch_size=16, lsq=False)
    assert lz.Quantize(**flat.to_dict()) == flat
    text = {
        "task": "synthetic",
        "model": "lenet5",
        "steps": [{"quantize": {"method": "qat", "channels": 0.1}}],
    }
    recipe = parse(text)
    assert parse(recipe.to_dict()) == recipe
    assert recipe.steps[0].training.channels == 0.1
    assert lz.Quantize().training is None
    assert lz.Quantize(method="qat").training.lr == 2e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 2}, "'epochs' goes with 'method: qat'"),
        ({"method": "qat", "epoch": 2}, "unknown option 'epoch'; did you mean 'epochs'"),
        ({"method": "qat", "channels": 0}, "channels"),
        ({"method": "ptq", "training": {}}, "'training' goes with"),
        ({"method": "qat", "max_drop": 0.01}, "'max_drop' goes with 'method: ptq'"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(RecipeError, match=message):
        lz.Quantize(**options)


def test_it_comes_last(task, tmp_path):
    with pytest.raises(RecipeError, match=r"steps\.0 \(quantize\).*make it the last step"):
        lz.compress(Net(), task, [step(), lz.Prune(ratio=0.5)], output=tmp_path / "o", **OPTIONS)
    assert not (tmp_path / "o").exists()


def test_a_drop_is_measured_on_the_validation_cut(task, tmp_path):
    run, state = alone(task, Net().eval(), target="onnxruntime")
    report = run_quantize(run, state, lz.Quantize(calibration=32, max_drop=0.0), tmp_path, resume=False)
    report = report["quantization"]["onnxruntime"]
    assert report["control"]["max_drop"] == 0
    assert report["accuracy"]["float"] == measure.evaluate(Net().eval(), task, split="validation").value
    blind = lz.Task(train=[(torch.zeros(4, 3, 8, 8), torch.arange(4) % 3)], calibration=[(torch.zeros(4, 3, 8, 8), torch.arange(4) % 3)])  # fmt: skip
    with pytest.raises(DataError, match="no validation cut to measure a drop on"):
        lz.compress(Net(), blind, [lz.Quantize(max_drop=0.1)], output=tmp_path / "p", **OPTIONS)


def test_the_zeros_of_pruned_weights_are_held_and_no_others():
    """A table that no step pruned may have sparse gradients, which take no mask."""
    model = nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight[:, ::2] = 0.0
    tokens = torch.arange(8)
    calibrated = quantize.quantize(model.eval(), (tokens,), [(tokens,)])
    module = quantize.make_trainable(calibrated)
    masks = qat.held_zeros(State(model=model, teacher=model, sparse={"1.weight"}), module)
    assert masks.kept == {"1.weight": 4}
    module(tokens).sum().backward()
    assert not module.get_parameter("1.weight").grad[:, ::2].any()
    assert qat.held_zeros(State(model=model, teacher=model), module) is None


def test_the_zeros_of_a_tied_weight_are_held_by_any_of_its_names():
    """The capture calls it by the name that the forward pass reads first."""
    model = nn.Sequential(OrderedDict(b=nn.Linear(4, 4), a=nn.Linear(4, 4)))
    model.b.weight = model.a.weight
    with torch.no_grad():
        model.a.weight[:, ::2] = 0.0
    inputs = torch.randn(8, 4)
    module = quantize.make_trainable(quantize.quantize(model.eval(), inputs, [inputs]))
    for name in ("a.weight", "b.weight"):
        masks = qat.held_zeros(State(model=model, teacher=model, sparse={name}), module)
        assert list(masks.kept.values()) == [8]
        masks.release()
