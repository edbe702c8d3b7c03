"""Recipes: YAML and back, environment, --set, and every way to write one wrong."""

from pathlib import Path

import pytest

import lianzhi as lz
from lianzhi import recipe as recipes
from lianzhi.errors import RecipeError
from lianzhi.pipeline.distilling import options_of

READY = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
GOOD = """
model: {name: resnet20, weights: "${HERE}/w.safetensors"}
task: {name: cifar10, data: "${HERE}", limit: 100}
steps:
  - sparsify: {coefficient: 1e-4, epochs: 5}
  - prune: {criterion: bn_scale, ratio: 0.5}
  - distill: {epochs: 2}
  - quantize
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setenv("HERE", "/some/where")

    def write(text):
        file = tmp_path / "r.yaml"
        file.write_text(text)
        return file

    return write


def test_reads_steps_and_environment(write):
    recipe = recipes.load(write(GOOD))
    assert recipe.model.weights == "/some/where/w.safetensors"
    assert recipe.task.options == {"limit": 100}
    assert [recipes.kind_of(step) for step in recipe.steps] == ["sparsify", "prune", "distill", "quantize"]
    assert recipe.steps[0].coefficient == 1e-4


def test_resolved_recipe_is_a_fixed_point(write):
    recipe = recipes.load(write(GOOD))
    again = recipes.load(write(recipe.to_yaml()))
    assert again == recipe
    assert again.to_yaml() == recipe.to_yaml()


def test_yaml_is_the_python_call(write):
    recipe = recipes.load(write(GOOD))
    assert recipe.steps[1] == lz.Prune(criterion="bn_scale", ratio=0.5)


def test_one_pattern_needs_no_list():
    assert lz.Prune(ratio=0.5, ignore="conv1") == lz.Prune(ratio=0.5, ignore=["conv1"])


def test_steps_are_frozen():
    with pytest.raises(Exception, match="frozen"):
        lz.Prune(ratio=0.5).ratio = 0.6


@pytest.mark.parametrize(
    ("assignment", "check"),
    [
        ("steps.1.ratio=0.6", lambda r: r.steps[1].ratio == 0.6),
        ("steps.1.prune.ratio=0.25", lambda r: r.steps[1].ratio == 0.25),
        ("seed=7", lambda r: r.seed == 7),
        ("steps.3.calibration=64", lambda r: r.steps[3].calibration == 64),
        ("task.limit=5", lambda r: r.task.options["limit"] == 5),
        ("measure.batches=[1]", lambda r: r.measure.batches == (1,)),
    ],
)
def test_set(write, assignment, check):
    assert check(recipes.load(write(GOOD), overrides=[assignment]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("criterion: bn_scale", "critrion: bn_scale"),
            "steps.1 .*unknown option 'critrion'; did you mean 'criterion'",
        ),
        (("- prune:", "- prun:"), "unknown step 'prun'; did you mean 'prune'"),
        (("steps:", "setps:"), "did you mean 'steps'"),
        (("ratio: 0.5", "ratio: 1.5"), "ratio"),
        (("ratio: 0.5", "ratio: half"), "ratio.*half"),
        (("ratio: 0.5", "ratio: 0.5, macs: 0.5"), "exactly one of"),
        (("ratio: 0.5", "round_to: 8"), "exactly one of"),
        (("${HERE}/w", "${NOT_SET_ANYWHERE}/w"), "NOT_SET_ANYWHERE.*is not set"),
        (("epochs: 5", "epochs: 5, epochs: 6"), "'epochs' stands twice"),
        (("name: resnet20, ", ""), "give 'name'"),
        (("- quantize", "- quantize: {method: magic}"), "method"),
    ],
)
def test_mistakes_are_named(write, change, message):
    assert change[0] in GOOD
    with pytest.raises(RecipeError, match=message):
        recipes.load(write(GOOD.replace(*change)))


@pytest.mark.parametrize(
    "text", ["", "[]", "just words", "a: [", "model: resnet20\ntask: cifar10\nsteps: []"]
)
def test_not_a_recipe(write, text):
    with pytest.raises(RecipeError):
        recipes.load(write(text))


def test_missing_file_suggests_a_neighbour(write):
    file = write(GOOD)
    with pytest.raises(RecipeError, match="did you mean"):
        recipes.load(str(file).replace("r.yaml", "rr.yaml"))


@pytest.mark.parametrize(
    "assignments",
    [
        ["steps.9.ratio=1"],
        ["steps.x.ratio=1"],
        ["steps.².ratio=1"],
        ["seed"],
        ["seed=3", "seed.deeper=1"],
        ["steps=[{}]", "steps.0.ratio=1"],
        ["steps=[5]", "steps.0.ratio=1"],
        ["steps=[{prune: 3}]", "steps.0.prune.ratio=1"],
    ],
)
def test_set_that_leads_nowhere(write, assignments):
    with pytest.raises(RecipeError):
        recipes.load(write(GOOD), overrides=assignments)


def test_options_of_a_task_are_taken_flat_or_as_options():
    flat = recipes.TaskSpec(name="cifar10", limit=100)
    assert flat.options == {"limit": 100}
    assert recipes.TaskSpec(name="cifar10", options={"limit": 100}) == flat


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("task:", "1: 2\ntask:"), "key 1 is not a word"),
        (("task:", "on: 2\ntask:"), "key True is not a word.*quotes"),
        (("task:", "measure: {1: 2}\ntask:"), "key 1 is not a word"),
        (("name: resnet20, ", "name: resnet20, options: 5, "), "'options' is a mapping.*got 5"),
        (("name: resnet20, ", "name: resnet20, options: {weights: w}, "), "'weights' is no option"),
        (("- quantize", "- train: {optimizer: adam, betas: [2, 3]}\n  - quantize"), "betas"),
    ],
)
def test_odd_types_are_named(write, change, message):
    assert change[0] in GOOD
    with pytest.raises(RecipeError, match=message):
        recipes.load(write(GOOD.replace(*change, 1)))


def test_a_home_folder_is_filled_in(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert recipes.expand({"a": ["~/x", "x~/y", "~"]}) == {"a": ["/home/me/x", "x~/y", "~"]}


def test_an_empty_section_can_be_set():
    raw = {"task": None}
    recipes.override(raw, "task.name=cifar10")
    assert raw == {"task": {"name": "cifar10"}}


@pytest.mark.parametrize("file", READY, ids=lambda file: file.stem)
def test_every_ready_recipe_is_read(write, file, monkeypatch):
    """The steps with their options, those of a distillation's method among them, and again as they are saved."""
    monkeypatch.setenv("DATA", "/data")
    recipe = recipes.load(str(file))
    assert recipes.load(write(recipe.to_yaml())) == recipe
    for step in recipe.steps:
        if isinstance(step, lz.Distill):
            options_of(step)
