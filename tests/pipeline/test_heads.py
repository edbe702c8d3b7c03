"""`head: new`: a last layer for other classes, and all that came before it as it was."""

import contextlib
import json

import pytest
import torch
from small_net import FAST
from torch import nn

import lianzhi as lz
from lianzhi import cli
from lianzhi.errors import GraphError, RecipeError
from lianzhi.pipeline import checks
from lianzhi.pipeline.heads import with_new_head
from lianzhi.pipeline.opening import open_model
from lianzhi.pipeline.sources import teachers_of
from lianzhi.pipeline.state import Run
from lianzhi.pipeline.store import Store
from lianzhi.recipe import ModelSpec, Recipe, StudentSpec

MEASURE = lz.Measure(batches=(1,), repeats=2, threads=1)


@pytest.fixture(scope="module")
def task():
    return lz.task("synthetic", samples=96, classes=5, shape=(3, 32, 32))


def same_but(model, other, *names):
    """The tensors that differ are these."""
    theirs = other.state_dict()
    found = {
        key
        for key, value in model.state_dict().items()
        if value.shape != theirs[key].shape or not torch.equal(value, theirs[key])
    }
    return found == set(names)


def test_a_model_of_the_zoo_is_one_of_other_classes(task, tmp_path):
    model, before = (lz.model("resnet20", num_classes=10) for _ in range(2))
    before.load_state_dict(model.state_dict())
    made = with_new_head(model, task, seed=3)
    assert made is model
    assert lz.models.remarks(made) == (
        "'linear' is new, for 5 outputs: it knows nothing before it is trained",
    )
    assert same_but(model, before, "linear.weight", "linear.bias")
    assert (model.linear.weight.shape, model.linear.out_features) == ((5, 64), 5)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        assert torch.equal(model.linear.weight, nn.Linear(64, 5).weight)
    lz.save(model.eval(), tmp_path / "m", example_inputs=torch.zeros(1, 3, 32, 32))
    found = lz.load(tmp_path / "m")
    assert found.zoo["config"]["num_classes"] == 5
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(found(images), model(images))


class Own(nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3072, 6), nn.ReLU())
        self.head = nn.Linear(6, 4, bias=bias)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        return self.drop(self.head(self.body(x)))


@pytest.mark.parametrize("bias", [True, False])
def test_an_artifact_of_another_model(task, tmp_path, bias):
    model = Own(bias).eval()
    lz.save(model, tmp_path / "m", example_inputs=torch.zeros(1, 3, 32, 32), labels=list("abcd"))
    made = open_model(ModelSpec(artifact=str(tmp_path / "m"), head="new"), seed=1, task=task)
    names = ("head.weight", "head.bias")[: 1 + bias]
    assert same_but(made, model, *names)
    inside = model.body(images := torch.randn(3, 3, 32, 32))
    wanted = nn.functional.linear(inside, made.head.weight, made.head.bias if bias else None)
    assert torch.allclose(made.eval()(images), wanted, atol=1e-6)
    again = open_model(ModelSpec(artifact=str(tmp_path / "m"), head="new"), seed=1, task=task)
    assert torch.equal(again.head.weight, made.head.weight)


def test_from_the_command_to_an_artifact_of_the_new_classes(task, tmp_path, capsys):
    """What was pruned on ten classes is the student of five, and the model of a training."""
    model, ten = lz.model("resnet20"), lz.task("synthetic", samples=64, classes=10, shape=(3, 32, 32))
    lz.compress(
        model,
        ten,
        [lz.Prune(ratio=0.5)],
        output=tmp_path / "ten",
        target="pytorch",
        measure=MEASURE,
        progress=False,
    )
    recipe = {
        "model": {"artifact": str(tmp_path / "ten"), "head": "new"},
        "task": {"name": "synthetic", "samples": 96, "classes": 5, "shape": [3, 32, 32]},
        "target": "pytorch",
        "measure": {"batches": [1], "repeats": 2, "threads": 1},
        "steps": [{"train": dict(FAST)}],
    }
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    command = ["train", str(tmp_path / "r.yaml"), "-o", str(tmp_path / "five"), "--quiet"]
    assert cli.main(command) == 0, capsys.readouterr().err
    written = (tmp_path / "five" / "report.json").stat().st_mtime_ns
    assert cli.main([*command, "--resume"]) == 0, capsys.readouterr().err
    assert (tmp_path / "five" / "report.json").stat().st_mtime_ns == written  # it was known again
    found, pruned = lz.load(tmp_path / "five"), lz.load(tmp_path / "ten")
    assert found.linear.weight.shape == (5, pruned.linear.in_features)
    assert found.layer1[0].conv1.weight.shape == pruned.layer1[0].conv1.weight.shape != (16, 16, 3, 3)
    step = lz.Distill(student={"artifact": str(tmp_path / "ten"), "head": "new"}, **FAST)
    result = lz.compress(
        found, task, [step], output=tmp_path / "student", target="pytorch", measure=MEASURE, progress=False
    )
    assert result.model.linear.out_features == 5


class Scaled(Own):
    def forward(self, x):
        return super().forward(x) * 2


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3072, 3072, bias=False), nn.Linear(3072, 3072, bias=False)
        self.last.weight = self.first.weight

    def forward(self, x):
        return self.last(self.first(x.flatten(1)).relu())


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3072, 7), nn.Linear(7, 7)

    def forward(self, x):
        return self.last(self.last(self.first(x.flatten(1))).relu())


class Aside(Own):
    """With a head that only training uses, as Inception has one."""

    def __init__(self, bias):
        super().__init__(bias)
        self.aside = nn.Linear(6, 4)

    def forward(self, x):
        inside = self.body(x)
        return (self.head(inside), self.aside(inside)) if self.training else self.head(inside)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Scaled(True), r"Scaled does not end in a linear layer .but in aten\.mul"),
        (Tied(), r"'first\.weight' is 'last\.weight' as well|'last\.weight' is 'first\.weight' as well"),
        (Twice(), r"'last\.weight' is read elsewhere too"),
        (Aside(True), "'aside' gives 4 classes too, in training alone"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_last_layer_to_renew(task, model, said):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RecipeError, match=said):
        with_new_head(model, task, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_quantized_artifact(task, tmp_path):
    steps = [lz.Quantize(method="ptq", calibration=16)]
    model = lz.model("lenet5", num_classes=5, in_channels=3, image_size=32)
    measured = {"target": "onnxruntime", "precision": "int8", "measure": MEASURE, "progress": False}
    lz.compress(model, task, steps, output=tmp_path / "m", **measured)
    with pytest.raises(GraphError, match=r"quantized already.*begin with the float model"):
        open_model(ModelSpec(artifact=str(tmp_path / "m"), head="new"), seed=0, task=task)


def test_an_artifact_of_half_precision(task, tmp_path):
    model = lz.model("lenet5", num_classes=5, in_channels=3, image_size=32).eval().half()
    lz.save(model, tmp_path / "m", example_inputs=torch.zeros(1, 3, 32, 32).half())
    with pytest.raises(GraphError, match=r"'conv1\.weight' of the model is float16"):
        open_model(ModelSpec(artifact=str(tmp_path / "m"), head="new"), seed=0, task=task)


def test_what_no_recipe_says(tmp_path):
    with pytest.raises(RecipeError, match="a recipe with one"):
        open_model(ModelSpec(name="lenet5", head="new"))
    for spec, values, said in (
        (ModelSpec, {"artifact": "x", "num_classes": 3}, "'head: new' gives it a last layer"),
        (ModelSpec, {"artifact": "x", "had": "new"}, "has no 'had' beside it; did you mean 'head'"),
        (
            ModelSpec,
            {"name": "lenet5", "options": {"head": "mlp"}},
            "'head' is no option of the model's own: it stands",
        ),
        (StudentSpec, {"layers": 2, "head": "new"}, "of the model as it is now"),
    ):
        with pytest.raises(RecipeError, match=said):
            spec(**values)
    own = ModelSpec(file="mine.py", name="make", options={"head": "mlp"})
    assert own.options == {"head": "mlp"}
    assert ModelSpec(**own.to_dict()) == own


def test_another_student_in_its_place_is_not_gone_on_with(tmp_path):
    (tmp_path / "student").mkdir()
    weights = tmp_path / "student" / "model.safetensors"
    recipe = Recipe(steps=(lz.Distill(student={"artifact": str(tmp_path / "student"), "head": "new"}),))
    weights.write_bytes(b"one")
    before = teachers_of(recipe)
    assert list(before) == [str(tmp_path / "student")]
    weights.write_bytes(b"two")
    assert teachers_of(recipe) != before


@pytest.mark.parametrize(
    ("steps", "refused"),
    [
        ([lz.Distill()], True),
        ([lz.Prune(ratio=0.5, iterations=2, refine=lz.Distill())], True),
        ([lz.ShareWeights(bits=4, epochs=1)], True),
        ([lz.Train(epochs=1), lz.Distill()], False),
        ([lz.Distill(teacher="out/other")], False),
        ([lz.ShareWeights(bits=4, epochs=1, distill=False)], False),
        ([lz.Prune(ratio=0.5)], False),
    ],
)
def test_a_head_that_knows_nothing_does_not_teach(task, tmp_path, steps, refused):
    recipe = Recipe(model=ModelSpec(name="lenet5", head="new"), steps=tuple(steps))
    run = Run(recipe, task, Store(tmp_path))
    with pytest.raises(RecipeError, match="knows nothing") if refused else contextlib.nullcontext():
        checks._check_teaches(run, len(steps) - 1, steps[-1])
