"""What cannot work is said before anything is written: models, tasks and precisions that end badly hours later."""

import os

import pytest
import torch
from small_net import FAST, run_of
from torch import nn

import lianzhi as lz
from lianzhi import deploy
from lianzhi.errors import DataError, GraphError, LianzhiError, RecipeError, TargetError
from lianzhi.graph import check_values
from lianzhi.pipeline import checks
from lianzhi.pipeline.packing import run_pack
from lianzhi.pipeline.sharing import run_share
from lianzhi.pipeline.state import State

PRUNE = [lz.Prune(ratio=0.5)]


@pytest.fixture(scope="module")
def task():
    return lz.task("synthetic", samples=64, classes=3, shape=(3, 8, 8))


def small(inner=None):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), inner or nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3)
    )


def refused(model, task, tmp_path, error, message, steps=PRUNE, **options):
    with pytest.raises(error, match=message):
        lz.compress(model, task, steps, output=tmp_path / "out", progress=False, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["0.weight", "1.running_var"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(task, tmp_path, name, value):
    model = small()
    with torch.no_grad():
        model.state_dict()[name].view(-1)[1] = value
    refused(model, task, tmp_path, GraphError, f"'{name}' has NaN or infinite values")


class Masked(nn.Module):
    """With a buffer that is infinite, as masks of attention are."""

    def __init__(self):
        super().__init__()
        self.body = small()
        self.register_buffer("mask", torch.tensor([0.0, 0.0, -torch.inf]))

    def forward(self, x):
        return self.body(x) + self.mask


def test_a_buffer_may_be_infinite():
    check_values(Masked())


def test_what_float16_has_not_is_said_before_a_run(task, tmp_path):
    step, model = lz.Pack(other="float16"), Masked()
    expected = {name: tensor.half().float() for name, tensor in model.named_parameters()}
    with torch.no_grad():
        expected["body.4.bias"] = model.body[4].bias.fill_(1e-8).clone()  # would all be zero
    checks.check(run_of(task, tmp_path / "run", step)[0], model)
    run_pack(None, State(model, model), step, tmp_path, resume=False)
    assert torch.equal(model.mask, Masked().mask)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.named_parameters())
    with torch.no_grad():
        model.body[4].bias[0] = 1e6
    message = "other: 'body.4.bias' has values that float16 has not"
    refused(model, task, tmp_path, RecipeError, message, steps=[step], target="pytorch")


def test_a_model_without_values(task, tmp_path):
    with torch.device("meta"):
        model = small()
    refused(model, task, tmp_path, GraphError, "'0.weight' has a shape and no values.*meta.*to_empty")
    with pytest.raises(GraphError, match="meta"):
        lz.prune.plan(model, task.example_inputs, ratio=0.5)


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (nn.DataParallel, r"DataParallel is a wrapper .*model\.module"),
        (torch.compile, r"OptimizedModule is a wrapper .*model\._orig_mod"),
        (
            lambda model: nn.Sequential(nn.LazyConv2d(8, 3), nn.Flatten(), nn.Linear(288, 3)),
            "has no shape yet",
        ),
    ],
)
def test_a_model_in_something_else(task, tmp_path, wrap, message):
    refused(wrap(small()), task, tmp_path, GraphError, message)


def test_a_model_that_is_quantized(task, tmp_path):
    model = lz.quantize.quantize(small().eval(), task.example_inputs, [torch.randn(8, 3, 8, 8)]).model
    for step in (lz.Train(epochs=1), lz.Quantize(calibration=8)):
        refused(model, task, tmp_path, GraphError, "the model is quantized already", [step])


@pytest.mark.parametrize(("change", "kind"), [(nn.Module.half, "float16"), (nn.Module.bfloat16, "bfloat16")])
def test_a_model_of_half_precision(task, tmp_path, change, kind):
    said = rf"'0\.weight' of the model is {kind}.*model\.float\(\)"
    refused(change(small()), task, tmp_path, GraphError, said)


def test_a_model_that_cannot_be_copied(task, tmp_path):
    """A tensor with a history cannot: what a forward pass left in an attribute, say."""
    model = small()
    model.seen = model(task.example_inputs)
    refused(model, task, tmp_path, GraphError, "Sequential cannot be copied.*hook")


@pytest.mark.parametrize("model", ["resnet20", None, nn.Linear])
def test_a_name_is_no_model(task, tmp_path, model):
    refused(model, task, tmp_path, RecipeError, r"model is a .*lz\.model\('resnet20'\)")


def test_a_name_is_no_task(tmp_path):
    refused(small(), "cifar10", tmp_path, RecipeError, r"task is a str; give lz\.task")


class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


def test_an_op_that_an_artifact_may_not_hold(task, tmp_path):
    refused(small(Bessel()), task, tmp_path, GraphError, r"Sequential could not be saved.*special_bessel_j0")


def test_a_name_that_is_a_word_of_python(task, tmp_path):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleDict({"in": small(), "class": nn.Linear(3, 3)})

        def forward(self, x):
            return self.parts["class"](self.parts["in"](x))

    refused(
        Named(), task, tmp_path, GraphError, "'parts.in' has a name that is a word of Python's own; rename"
    )


@pytest.mark.parametrize(
    "label", ["two\nlines", "red\x1b[31m", "left\u202eright", os.fsdecode(b"caf\xe9"), "a\u2028b"]
)
def test_names_of_classes_that_cannot_be_kept(tmp_path, label):
    batch = (torch.randn(6, 3, 8, 8), torch.arange(6) % 3)
    task = lz.Task(train=[batch], validation=[batch], test=[batch], labels=["a", "b", label])
    refused(small(), task, tmp_path, DataError, "the label .* name of one line of plain text")


@pytest.mark.parametrize(
    ("target", "precision"), [("onnxruntime", "bf16"), ("pytorch", "bf16"), ("pytorch", "int8")]
)
def test_a_precision_that_the_target_has_not(task, tmp_path, target, precision):
    steps = [lz.Quantize(calibration=8)] if precision == "int8" else PRUNE
    refused(
        small(), task, tmp_path, LianzhiError, "not offered on this machine|PyTorch computes", steps,
        target=target, precision=precision,
    )  # fmt: skip


def test_bf16_where_the_processor_has_none(task, tmp_path, monkeypatch):
    monkeypatch.setattr(type(deploy.registry.get("openvino").build), "_has_bf16", lambda self: False)
    message = r"'bf16' is not offered on this machine by target 'auto' \(onnxruntime: f32; openvino: f32\)"
    refused(small(), task, tmp_path, TargetError, message, precision="bf16")


def test_int8_is_nothing_for_pytorch(task, tmp_path):
    steps = [lz.Prune(ratio=0.5), lz.Quantize(calibration=8)]
    refused(
        small(),
        task,
        tmp_path,
        RecipeError,
        r"steps\.1 \(quantize\): PyTorch computes",
        steps,
        target="pytorch",
    )


@pytest.mark.parametrize(
    ("teacher", "shape", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), (3, 8, 8), "gives 5 outputs, and the model 3"),
        (nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), (3, 4, 4), "does not run on the inputs of task"),
    ],
)
def test_a_teacher_of_something_else(task, tmp_path, teacher, shape, message):
    """The step that needs it may be hours away."""
    lz.save(teacher, tmp_path / "teacher", example_inputs=torch.zeros(1, *shape))
    steps = [lz.Train(epochs=1), lz.Distill(teacher=str(tmp_path / "teacher"))]
    refused(small(), task, tmp_path, RecipeError, rf"steps\.1 \(distill\): the teacher .* {message}", steps)


def test_labels_beyond_the_outputs(tmp_path):
    batch = (torch.randn(6, 3, 8, 8), torch.arange(6))
    task = lz.Task(train=[batch], validation=[batch], test=[batch])
    with pytest.raises(DataError, match="labels go from 0 to 5, and the model has 3 outputs"):
        lz.compress(small(), task, [lz.Train(epochs=1)], output=tmp_path / "out", progress=False)


def with_metric(values):
    """A task of which the metric gives these values in turn, the last one ever after."""
    batch = (torch.randn(8, 3, 8, 8), torch.arange(8) % 3)
    left = list(values)
    metric = lambda outputs, labels: left.pop(0) if len(left) > 1 else left[0]  # noqa: E731
    return lz.Task(
        train=[batch], validation=[batch], calibration=[batch], test=[batch], metrics={"own": metric}
    )


def test_a_metric_that_is_no_share_is_told_before_any_step(tmp_path):
    with pytest.raises(
        DataError, match=r"metric 'own' of task 'custom' is -3\.5 on test; a metric is a share"
    ):
        lz.compress(small(), with_metric([-3.5]), PRUNE, output=tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / ".work" / "step-0").exists()


def test_a_metric_that_is_no_number_does_not_end_a_run(tmp_path):
    """A correlation of constant outputs is none; it is a dash in the report, and never the best."""
    nan = float("nan")
    steps = [lz.Train(epochs=2, batch_size=8), lz.Prune(ratio=0.5)]
    result = lz.compress(
        small(), with_metric([0.5, 0.5, nan, nan, 0.4]), steps, output=tmp_path / "out", progress=False,
        target="onnxruntime", measure=lz.Measure(batches=(1,), repeats=2),
    )  # fmt: skip
    history = result.report.rows[1]["details"]["history"]
    assert [epoch["metric"] for epoch in history["epochs"]] == [None, None]
    assert history["best_epoch"] is None


class One(nn.Module):
    """Its code counts on one sample a call."""

    def __init__(self, mixes):
        super().__init__()
        self.mixes, self.body, self.head = mixes, nn.Linear(192, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = x.reshape(-1, 192).mean(0, keepdim=True) if self.mixes else x.reshape(1, 192)
        return self.head(torch.relu(self.body(x)))


def test_a_model_of_one_sample_a_call(task, tmp_path):
    refused(One(False), task, tmp_path, GraphError, "takes one sample at a time .shape")
    refused(One(True), task, tmp_path, GraphError, r"two samples give an output of shape \(1, 3\)")


@pytest.mark.parametrize("step", [lz.ShareWeights(bits=4, max_drop=0.1, epochs=0), lz.Quantize(max_drop=0.1)])
def test_no_budget_is_decided_on_the_split_that_is_reported(tmp_path, step):
    loader = [(torch.randn(8, 3, 8, 8), torch.arange(8) % 3)]
    own = lz.Task(train=loader, validation=loader, calibration=loader)
    target = "pytorch" if isinstance(step, lz.ShareWeights) else "onnxruntime"
    message = "no validation cut to measure a drop on beside the split that it reports.*test="
    refused(small(), own, tmp_path, DataError, message, steps=[step], target=target)


def test_sharing_keeps_the_better_values_without_a_cut(tmp_path):
    loader = [(torch.randn(8, 3, 8, 8), torch.arange(8) % 3)]
    run, folder = run_of(
        lz.Task(train=loader, validation=loader), tmp_path, lz.ShareWeights(bits=3, distill=False, **FAST)
    )
    model = small()
    details = run_share(run, State(model, model), run.recipe.steps[0], folder, resume=False)
    assert 0 <= details["history"]["before"] <= 1
