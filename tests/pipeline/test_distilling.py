"""The step `distill`: students, stages one after another, the cache, and a run that is stopped in between."""

import shutil

import pytest
import torch
from pydantic import Field
from torch import nn

import lianzhi as lz
from lianzhi import distill, files, train
from lianzhi.config import Config
from lianzhi.distill.methods import Learner, Lessons, Setting, Stage
from lianzhi.errors import ArtifactError, GraphError, RecipeError
from lianzhi.pipeline.distilling import stage_options
from lianzhi.pipeline.sources import teachers_of
from lianzhi.recipe import Recipe
from lianzhi.train.default_step import call

MEASURE = lz.Measure(batches=(1,), repeats=2, threads=1)
FAST = {"epochs": 1, "batch_size": 32, "lr": 0.01, "augment": False}


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        return x + torch.relu(self.linear(x))


class Deep(nn.Module):
    """A stem, a stack of like blocks, a head."""

    def __init__(self, depth=4, width=12):
        super().__init__()
        self.stem = nn.Linear(3 * 8 * 8, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        x = self.stem(x.flatten(1))
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class TwoStages(Config):
    """Options of the method that these tests register."""

    weight: float = Field(default=2.0, gt=0)


@pytest.fixture
def two_stages():
    """A method of two stages: the first trains a projection beside the student, the second is kd on the rest."""
    name = "two_stages"

    def build(setting: Setting, options: TwoStages) -> Lessons:
        learner = Learner(setting.student, {"projection": nn.Linear(4, 4)})

        def project(model, batch):
            outputs = model.heads["projection"](call(model.student, batch.inputs))
            loss = (outputs - setting.logits(batch, outputs.device)).square().mean()
            return {"loss": options.weight * loss, "terms": {"mse": loss.detach()}}

        last = distill.methods.kd.make_step(setting.source, loss=setting.task.loss)
        return Lessons(
            [
                Stage("first", project, model=learner, options={"epochs": 2, "lr": 1e-3}, choose=False),
                Stage("second", last),
            ]
        )

    registry = distill.methods.registry
    registry.register(name, "of the tests", config=TwoStages)(build)
    yield name
    registry._entries.pop(name)


def compress(model, task, steps, output, **options):
    return lz.compress(
        model, task, steps, output=output, target="pytorch", measure=MEASURE, progress=False, **options
    )


@pytest.mark.parametrize(
    ("student", "depth", "kept"),
    [
        ({"layers": 2}, 2, [1, 3]),
        ({"layers": [1, 2, 4]}, 3, [0, 1, 3]),
        ({"layers": 2, "init": "first"}, 2, [0, 1]),
        ({"layers": 1, "init": "scratch"}, 1, None),
        ({"init": "scratch"}, 4, None),
    ],
)
def test_layers_of_the_model(task, tmp_path, student, depth, kept):
    torch.manual_seed(1)  # not the run's, which draws the fresh ones
    model = Deep()
    result = compress(model, task, [lz.Distill(student=student, **{**FAST, "epochs": 0})], tmp_path / "out")
    assert len(model.blocks) == 4
    found = lz.load(tmp_path / "out").state_dict()
    assert len(result.model.blocks) == depth
    if kept is None:
        assert not torch.equal(found["head.weight"], model.head.weight)
    else:
        assert torch.equal(found["head.weight"], model.head.weight)
        for place, teacher in enumerate(kept):
            assert torch.equal(result.model.blocks[place].linear.weight, model.blocks[teacher].linear.weight)


def test_another_model_is_the_student_and_is_pruned_afterwards(task, tmp_path):
    model = Deep()
    steps = [
        lz.Train(**FAST),
        lz.Distill(student={"name": "dnn_2", "in_channels": 3, "image_size": 8, "hidden": [16]}, **FAST),
        lz.Prune(ratio=0.5),
    ]
    result = compress(model, task, steps, tmp_path / "out")
    rows = result.report.rows
    assert rows[2]["parameters"] == 192 * 16 + 16 + 16 * 4 + 4
    assert rows[3]["parameters"] < rows[2]["parameters"] / 1.9
    batch = next(iter(task.batches("test", 8)))
    assert torch.allclose(lz.load(tmp_path / "out").eval()(batch.inputs), result.model.eval()(batch.inputs))


def test_stages_are_trained_one_after_another(task, tmp_path, two_stages):
    step = lz.Distill(method=two_stages, stages={"second": {"epochs": 3}}, options={"weight": 1.5}, **FAST)
    result = compress(Deep(), task, [lz.Train(**FAST), step], tmp_path / "out")
    details = result.report.rows[-1]["details"]
    assert [len(details["stages"][name]["epochs"]) for name in ("first", "second")] == [2, 3]
    assert details["history"] == details["stages"]["second"]
    losses = [entry["loss"] for entry in details["stages"]["first"]["epochs"]]
    assert losses[1] < losses[0]
    assert not any("projection" in name for name in lz.load(tmp_path / "out").state_dict())
    saved = files.parse_yaml((tmp_path / "out" / "recipe.yaml").read_text(), "recipe")["steps"][1]["distill"]
    assert saved["options"] == {"weight": 1.5}


@pytest.mark.parametrize(
    ("step", "stage", "rate"),
    [
        ({}, {"optimizer": "adamw"}, 1e-3),
        ({"lr": 0.3}, {"optimizer": "adamw"}, 0.3),
        ({}, {"optimizer": "adamw", "lr": 2e-5}, 2e-5),
        ({"optimizer": "adamw"}, {"optimizer": "adadelta"}, 1.0),
        ({"optimizer": "adamw"}, {"epochs": 1}, 1e-3),
    ],
)
def test_another_optimizer_of_a_stage_has_its_own_default_rate(step, stage, rate):
    given = lz.Distill(method="kd", stages={"kd": stage}, **step)
    assert stage_options(given, Stage("kd", None)).lr == rate
    phase = lz.Distill(method="kd", stages={"kd": {"epochs": 2}}, **step)
    assert stage_options(phase, Stage("kd", None, options=stage)).lr == rate


def test_the_saved_recipe_has_the_method_s_defaults(task, tmp_path):
    step = lz.Distill(temperature=2.0, **{**FAST, "epochs": 0})
    compress(Deep(), task, [step, lz.Prune(ratio=0.5, iterations=2, refine=step)], tmp_path / "out")
    saved = files.parse_yaml((tmp_path / "out" / "recipe.yaml").read_text(), "recipe")["steps"]
    for found in (saved[0]["distill"], saved[1]["prune"]["refine"]["distill"]):
        assert (found["options"]["temperature"], found["options"]["alpha"]) == (2.0, 0.9)
        assert (found["temperature"], found["alpha"]) == (None, None)
        assert lz.Distill(**found).to_dict() == found


def stop_at(monkeypatch, name, updates):
    """Stop the run after so many updates of a stage."""
    real = train.fit
    seen = []

    def stop(model):
        seen.append(model)
        if len(seen) > updates:
            raise KeyboardInterrupt

    def fit(model, task, options, **rest):
        assert rest.get("after_step") is None
        return real(model, task, options, **{**rest, "after_step": stop if name in rest["title"] else None})

    monkeypatch.setattr(train, "fit", fit)


@pytest.mark.parametrize("stage", ["first", "second"])
def test_a_run_stopped_in_a_stage_ends_with_the_same_weights(task, tmp_path, two_stages, monkeypatch, stage):
    torch.manual_seed(0)
    model = Deep()
    steps = [lz.Train(**FAST), lz.Distill(method=two_stages, student={"layers": 2}, **FAST)]
    whole = compress(model, task, steps, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, stage, 4)
        with pytest.raises(KeyboardInterrupt):
            compress(model, task, steps, tmp_path / "stopped")
    resumed = compress(model, task, steps, tmp_path / "stopped", resume=True)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_run_goes_on_with_the_teacher_that_it_began_with(task, tmp_path, monkeypatch):
    for seed in (1, 2):
        torch.manual_seed(seed)
        lz.save(Deep(), tmp_path / f"teacher-{seed}", example_inputs=task.example_inputs)
    place, model = tmp_path / "teacher", Deep()
    step = lz.Distill(teacher=str(place), **FAST)

    def fail(*_, **__):
        raise KeyboardInterrupt

    shutil.copytree(tmp_path / "teacher-1", place)
    with monkeypatch.context() as patch:
        patch.setattr(train, "fit", fail)
        with pytest.raises(KeyboardInterrupt):
            compress(model, task, [step], tmp_path / "out")
    shutil.rmtree(place)
    shutil.copytree(tmp_path / "teacher-2", place)
    with pytest.raises(RecipeError, match=r"this differs: teachers\..*teacher \("):
        compress(model, task, [step], tmp_path / "out", resume=True)
    shutil.rmtree(place)
    shutil.copytree(tmp_path / "teacher-1", place)
    (place / "report.json").write_text("{}")  # a measurement of the teacher changes nothing
    assert len(compress(model, task, [step], tmp_path / "out", resume=True).report.rows) == 2


def test_a_folder_called_original_is_no_teacher(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("original", "other"):
        (tmp_path / name).mkdir()
    steps = lz.Distill(**FAST), lz.Distill(teacher="other", **FAST)
    assert list(teachers_of(Recipe(steps=steps))) == ["other"]


def test_a_finished_step_is_replayed(task, tmp_path, two_stages, monkeypatch):
    model = Deep()
    steps = [
        lz.Distill(method=two_stages, student={"layers": 2}, **FAST),
        lz.Train(**FAST),
    ]
    whole = compress(model, task, steps, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, "train", 2)
        with pytest.raises(KeyboardInterrupt):
            compress(model, task, steps, tmp_path / "stopped")
    resumed = compress(model, task, steps, tmp_path / "stopped", resume=True)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_the_cache_saves_the_teacher_s_passes(task, tmp_path, monkeypatch):
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path / "cache"))
    passes = []
    real = distill.methods.teacher.teacher_logits
    monkeypatch.setattr(
        distill.teacher_cache, "teacher_logits", lambda *given: (passes.append("kept"), real(*given))[1]
    )
    monkeypatch.setattr(
        distill.methods.teacher, "teacher_logits", lambda *given: (passes.append("run"), real(*given))[1]
    )
    step = lz.Distill(student={"layers": 2}, cache=True, **{**FAST, "epochs": 3})
    model = Deep()
    cached = compress(model, task, [step], tmp_path / "one")
    assert set(passes) == {"kept"}
    assert len(passes) == task.steps("train", 32)
    compress(model, task, [step], tmp_path / "two")
    assert len(passes) == task.steps("train", 32) + 1, "a few samples, to see that it is the same teacher"
    plain = compress(model, task, [step.model_copy(update={"cache": False})], tmp_path / "three")
    assert passes.count("run") == 3 * task.steps("train", 32)
    for name, value in plain.model.state_dict().items():
        assert torch.allclose(value, cached.model.state_dict()[name], atol=2e-3), name


@pytest.mark.parametrize(
    ("step", "error", "match"),
    [
        ({"student": {"layers": 9}}, RecipeError, "the model has 4 layers"),
        ({"student": {"layers": [2, 9]}}, RecipeError, "the model has 4 layers"),
        ({"student": {"name": "dnn_2"}}, RecipeError, "student does not run on the inputs"),
        ({"options": {"temperatur": 3}}, RecipeError, "did you mean 'temperature'"),
        ({"options": {"alpha": 0.5}, "alpha": 0.5}, RecipeError, "give it once"),
        ({"stages": {"prediction": {"epochs": 2}}}, RecipeError, "has no stage 'prediction'; it has kd"),
        ({"cache": True, "augment": True}, RecipeError, "augment: false"),
        ({"cache": "FILE"}, ArtifactError, "is a file, and a folder of that name is needed"),
        ({"cache": "FILE/inside"}, ArtifactError, "is a file, and a folder of that name is needed"),
        ({"cache": "DAMAGED"}, ArtifactError, "teacher.safetensors is damaged"),
        ({"cache": "no\0path"}, ArtifactError, "is not a path"),
        ({"cache": "x" * 300}, ArtifactError, "cannot be made: file name too long"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_written(task, tmp_path, step, error, match):
    if step.get("augment"):
        task = lz.Task(
            train=[(torch.zeros(4, 3, 8, 8), torch.arange(4))],
            validation=[(torch.zeros(4, 3, 8, 8), torch.arange(4))],
            num_classes=4,
        )
    (tmp_path / "DAMAGED").mkdir()
    for file in ("FILE", "DAMAGED/teacher.safetensors"):
        (tmp_path / file).write_bytes(b"no tensors")
    if isinstance(step.get("cache"), str):
        step = {"cache": str(tmp_path / step["cache"])}
    with pytest.raises(error, match=match):
        compress(Deep(), task, [lz.Distill(**{**FAST, **step})], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"student": {"layers": [2, 1]}}, "numbers that rise"),
        ({"student": {"layer": 2}}, "there is only 'layer'; did you mean 'layers'"),
        ({"student": {"layers": 2, "int": "first"}}, "unknown option 'int'; did you mean 'init'"),
        ({"student": {"layers": []}}, "numbers that rise"),
        ({"student": {"layers": 2, "name": "mlp"}}, "of the model as it is now"),
        ({"student": {"init": "first"}}, "give 'layers' as a number"),
        ({"stages": {"kd": {"epoch": 2}}}, "did you mean 'epochs'"),
        ({"top_k": 5}, "add cache: true"),
        ({"cache": ""}, "'cache' is an empty name"),
        ({"stages": {"kd": {"label_smoothing": 0.1}}}, "is of the whole step"),
    ],
)
def test_options_that_do_not_go_together(options, match):
    with pytest.raises(RecipeError, match=match):
        lz.Distill(**options)


def test_kept_logits_go_with_no_stage_that_augments(tmp_path):
    task = lz.task("synthetic", samples=64, classes=4, shape=(3, 8, 8))
    step = lz.Distill(cache=True, stages={"kd": {"augment": True}}, **FAST)
    task.splits["train"].fixed = lambda augment: not augment  # as pictures with an augmentation say it
    with pytest.raises(RecipeError, match="augment: false"):
        compress(Deep(), task, [step], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(task, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # as for a user who is not root
    with pytest.raises(ArtifactError, match="cache cannot be written: permission denied"):
        compress(Deep(), task, [lz.Distill(cache=str(tmp_path / "cache"), **FAST)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_stack_has_no_layers_to_choose(task, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(GraphError, match="has no list of blocks of one class; give a student of its own"):
        compress(model, task, [lz.Distill(student={"layers": 1}, **FAST)], tmp_path / "out")


def test_a_cache_of_another_teacher_is_refused(task, tmp_path):
    step = lz.Distill(cache=str(tmp_path / "cache"), **FAST)
    compress(Deep(), task, [step], tmp_path / "one")
    with torch.random.fork_rng():
        torch.manual_seed(5)
        other = Deep()
    with pytest.raises(ArtifactError, match="another teacher"):
        compress(other, task, [step], tmp_path / "two")
    for change, match in (
        ({"teacher": str(tmp_path / "one")}, "another teacher"),
        ({"top_k": 2}, "another top_k"),
        ({}, "another task"),
    ):
        data = task if change else lz.task("synthetic", samples=180, classes=4, shape=(3, 8, 8))
        with pytest.raises(ArtifactError, match=rf"steps\.0 .*{match}"):
            compress(Deep(), data, [step.model_copy(update=change)], tmp_path / "three")
        assert not (tmp_path / "three").exists(), "known before the run begins"


def test_a_stage_whose_inputs_stay_the_same_has_a_cache_whatever_the_step_says(task, tmp_path, monkeypatch):
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path / "cache"))
    step = lz.Distill(cache=True, **{**FAST, "augment": True}, stages={"kd": {"augment": False}})
    compress(Deep(), task, [step], tmp_path / "one")
    assert list((tmp_path / "cache").rglob("teacher-*.safetensors"))
