"""`lianzhi init`: what it finds in a folder, what it asks, what it writes, and what it refuses."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import torch
from places import NET, write_net, write_one_part, write_photos, write_reviews

from lianzhi import jobs, recipe
from lianzhi.cli import main
from lianzhi.errors import ArtifactError, DataError, LianzhiError, RecipeError
from lianzhi.jobs import Missing, Wish
from lianzhi.recipe import Distill, Prune, Quantize, Train


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path / ".cache"))
    return tmp_path


def kinds(made):
    return [type(step) for step in made.steps]


def test_a_model_its_weights_and_images_are_found_by_themselves(here):
    write_net(here, weights="net.safetensors")
    write_photos(here / "photos")
    started = jobs.init(Wish())
    made = recipe.load("recipe.yaml")
    assert made.model.to_dict() == {
        **{"file": "net.py", "name": "Net", "weights": "net.safetensors", "artifact": None},
        **{"num_classes": None, "options": {}, "head": None},
    } | {"num_classes": 3}
    assert (made.task.name, made.task.data) == ("image_folder", "photos")
    assert kinds(made) == [Prune, Distill, Quantize]
    assert started.next == (
        "lianzhi compress recipe.yaml --dry-run",
        "lianzhi compress recipe.yaml -o out/recipe",
    )
    assert not (here / "was-run").exists()


def test_every_line_of_the_recipe_has_a_comment(here):
    write_net(here)
    write_photos(here / "photos")
    for goal in ("fastest", "smallest", "accurate"):
        jobs.init(Wish(goal=goal, output=f"{goal}.yaml"))
        lines = (here / f"{goal}.yaml").read_text().splitlines()
        bare = [line for line in lines if line and "#" not in line]
        assert bare == ["model:", "task:", "steps:", "measure:"]
        assert max(map(len, lines)) < 140


def test_without_weights_it_is_trained_first(here):
    write_net(here)
    write_photos(here / "photos")
    assert "trains first" in " ".join(jobs.init(Wish()).remarks)
    assert kinds(recipe.load("recipe.yaml")) == [Train, Prune, Distill, Quantize]
    write_net(here, weights="net.pt")
    assert jobs.init(Wish(force=True, weights="none")).recipe
    assert kinds(recipe.load("recipe.yaml"))[0] is Train


def test_goals_differ(here):
    write_net(here, weights="net.pt")
    write_photos(here / "photos")
    made = {}
    for goal in ("fastest", "smallest", "accurate"):
        jobs.init(Wish(goal=goal, output=f"{goal}.yaml"))
        made[goal] = recipe.load(f"{goal}.yaml")
    assert made["fastest"].steps[0].ratio < made["smallest"].steps[0].ratio
    assert kinds(made["accurate"]) == [Quantize]
    assert (
        made["accurate"].measure.max_drop
        < made["fastest"].measure.max_drop
        < made["smallest"].measure.max_drop
    )
    assert made["smallest"].precision == "int8"


@pytest.mark.parametrize("name", ["num_labels", "n_classes", "classes"])
def test_a_number_of_classes_by_another_name(here, name):
    write_net(here, text=NET.replace("num_classes", name))
    write_photos(here / "photos")
    jobs.init(Wish())
    made = recipe.load("recipe.yaml").model
    assert (made.options, made.num_classes) == ({name: 3}, None)


def test_a_model_of_a_size_of_its_own_gets_images_of_that_size(here):
    write_net(here, text=NET.replace("width=8", "width=8, image_size=20"))
    write_photos(here / "photos")
    jobs.init(Wish())
    made = recipe.load("recipe.yaml")
    assert made.task.options["size"] == 20
    assert "image_size" not in made.model.options


def test_grey_images_reach_a_model_for_colours(here):
    write_net(here, text=NET.replace("width=8", "width=8, in_channels=3"))
    write_photos(here / "photos")
    jobs.init(Wish(overrides=["task.channels=1"]))
    assert recipe.load("recipe.yaml").model.options == {"in_channels": 1}


def test_a_parameter_without_a_default_is_asked_for(here):
    write_net(here, text=NET.replace("num_classes=10, width=8", "width, num_classes=10"))
    write_photos(here / "photos")
    with pytest.raises(RecipeError, match=r"net\.py:Net takes 'width', .* --set model\.width=VALUE"):
        jobs.init(Wish())
    jobs.init(Wish(overrides=["model.width=12"]))
    assert recipe.load("recipe.yaml").model.options == {"width": 12}
    asked = []
    jobs.init(Wish(force=True, goal="fastest", weights="none"), lambda missing: asked.append(missing) or "16")
    assert [missing.flag for missing in asked] == ["--set model.width=VALUE"]
    assert recipe.load("recipe.yaml").model.options == {"width": 16}


def test_a_file_that_is_no_python_is_told_where_nothing_else_is_found(here):
    write_net(here, text="class Net(nn.Module:\n    pass\n")
    write_photos(here / "photos")
    with pytest.raises(RecipeError, match=r"No model was found in this folder\. net\.py:1: no valid Python"):
        jobs.init(Wish())


def test_of_two_models_one_is_asked_for(here):
    write_net(here, text=NET + NET.replace("class Net", "class Other"))
    write_photos(here / "photos")
    with pytest.raises(
        RecipeError, match=r"Which model\? There are 'net.py:Net', 'net.py:Other'; give --model"
    ):
        jobs.init(Wish())
    assert not (here / "recipe.yaml").exists()
    jobs.init(Wish(model="net.py:Other"))
    assert recipe.load("recipe.yaml").model.name == "Other"


def test_of_two_data_sets_one_is_asked_for(here):
    write_net(here)
    write_photos(here / "photos")
    write_photos(here / "more" / "photos")
    with pytest.raises(RecipeError, match=r"Which data\? There are 'photos', 'more/photos'; give --data"):
        jobs.init(Wish())
    jobs.init(Wish(data="more/photos"))
    assert recipe.load("recipe.yaml").task.data == "more/photos"


def test_weights_of_another_name_are_taken_alone_and_asked_for_beside_others(here):
    write_net(here, weights="trained.pt")
    write_photos(here / "photos")
    jobs.init(Wish())
    assert recipe.load("recipe.yaml").model.weights == "trained.pt"
    write_net(here, weights="older.safetensors")
    with pytest.raises(RecipeError, match=r"'older.safetensors', 'trained.pt', 'none'; give --weights"):
        jobs.init(Wish(force=True))
    write_net(here, weights="net.pth")
    jobs.init(Wish(force=True))
    assert recipe.load("recipe.yaml").model.weights == "net.pth"


def test_weights_that_would_run_code_are_refused(here):
    class Harm:
        def __reduce__(self):
            return os.system, ("touch harmed",)

    write_net(here)
    write_photos(here / "photos")
    torch.save({"a": Harm()}, here / "net.pt", pickle_module=pickle)
    with pytest.raises(ArtifactError, match=r"--weights net.pt: .*--weights none"):
        jobs.init(Wish())
    assert not (here / "harmed").exists()
    assert not (here / "recipe.yaml").exists()


def test_a_zoo_model_is_fitted_to_the_images(here):
    write_photos(here / "photos", side=20)
    with pytest.raises(RecipeError, match=r"No model was found in this folder\. Give --model \(.*resnet20"):
        jobs.init(Wish())
    jobs.init(Wish(model="lenet5"))
    made = recipe.load("recipe.yaml").model
    assert (made.name, made.num_classes, made.options) == ("lenet5", 3, {"in_channels": 3, "image_size": 20})
    assert (here / "recipe.yaml").is_file()


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"model": "resnet2"}, "no such file or folder .*, and no model of the zoo; did you mean 'resnet"),
        ({"model": "none.py:Net"}, "--model none.py: no such file"),
        ({"model": "net.py:Nett"}, "no function or class 'Nett'; what makes a model there: Net"),
        ({"model": "photos"}, "neither an artifact"),
        ({"model": "net.safetensors"}, "these are weights alone"),
        ({"model": "bilstm"}, "bilstm of the zoo takes texts"),
        ({"data": "nowhere"}, "nowhere: no such file or folder"),
        ({"data": "empty"}, "empty: no data that is known"),
        ({"task": "image_foldr"}, "did you mean 'image_folder'"),
        ({"goal": "fast"}, "--goal fast: no such goal; did you mean 'fastest'"),
        ({"target": "onnxruntim"}, "did you mean 'onnxruntime'"),
        ({"overrides": ["steps.1.ratoi=0.5"]}, "did you mean 'ratio'"),
        ({"weights": "nowhere.pt"}, "--weights nowhere.pt: "),
        ({"output": "net.py"}, "-o net.py: is there already"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_written(here, wish, message):
    write_net(here)
    write_photos(here / "photos")
    (here / "empty").mkdir()
    before = sorted(here.iterdir())
    with pytest.raises(LianzhiError, match=message):
        jobs.init(Wish(**wish))
    assert sorted(item for item in here.iterdir() if item.name != ".cache") == before


def test_texts_get_words_and_a_model_of_texts(here):
    write_reviews(here / "reviews.csv")
    with pytest.raises(RecipeError, match="resnet20 of the zoo takes images"):
        jobs.init(Wish(model="resnet20"))
    jobs.init(Wish(model="bilstm"))
    made = recipe.load("recipe.yaml")
    assert (made.task.name, made.task.data, made.task.options) == (
        "text",
        "reviews.csv",
        {"tokenizer": "words"},
    )
    assert made.model.num_classes == 2


def test_columns_that_nobody_names_are_told(here):
    write_reviews(here / "reviews.csv", header="body,stars")
    with pytest.raises(DataError, match="which column is the text"):
        jobs.init(Wish(model="bilstm", data="reviews.csv"))
    jobs.init(Wish(model="bilstm", data="reviews.csv", overrides=["task.text=body", "task.label=stars"]))
    assert recipe.load("recipe.yaml").task.options == {"tokenizer": "words", "text": "body", "label": "stars"}


def test_an_own_model_of_texts_gets_the_number_of_tokens(here):
    write_net(here, text=NET.replace("num_classes=10, width=8", "vocab_size, num_classes=2"))
    write_reviews(here / "reviews.csv")
    jobs.init(Wish())
    made = recipe.load("recipe.yaml").model
    assert made.options["vocab_size"] > 60
    assert made.num_classes == 2


def test_an_artifact_brings_its_data(here):
    import lianzhi as lz

    lz.save(lz.model("lenet5_classic"), here / "done", example_inputs=torch.zeros(1, 1, 28, 28))
    (here / "done" / "recipe.yaml").write_text("task: {name: synthetic, samples: 96, shape: [1, 28, 28]}\n")
    jobs.init(Wish())
    made = recipe.load("recipe.yaml")
    assert made.model.artifact == "done"
    assert (made.task.name, made.task.options["samples"]) == ("synthetic", 96)
    assert kinds(made) == [Prune, Distill, Quantize]


def test_an_onnx_file_needs_no_recipe(here):
    import lianzhi as lz

    lz.deploy.export_onnx(lz.model("lenet5_classic"), torch.zeros(1, 1, 28, 28), here / "net.onnx")
    write_photos(here / "photos")
    started = jobs.init(Wish())
    assert started.recipe is None
    assert started.next == ("lianzhi compress net.onnx --data photos -o out/net",)
    assert not (here / "recipe.yaml").exists()


def test_a_task_that_finds_its_own_data_has_none(here):
    jobs.init(Wish(model="lenet5", task="synthetic", overrides=["task.samples=96", "task.shape=[1,28,28]"]))
    made = recipe.load("recipe.yaml")
    assert (made.task.data, made.task.options["samples"], made.model.num_classes) == (None, 96, 10)


def test_without_a_training_part_nothing_is_trained(here):
    write_net(here, weights="net.pt")
    write_photos(here / "photos")
    told = {"model": "net.py:Net", "data": "photos", "overrides": ["task.calibration=0"]}
    with pytest.raises(
        DataError, match=r"no samples to calibrate with; cut some off: --set task\.calibration=128"
    ):
        jobs.init(Wish(**told))
    assert not (here / "recipe.yaml").exists()
    write_one_part(here / "sample")
    told = {"model": "net.py:Net", "data": "sample", "goal": "accurate"}
    with pytest.raises(DataError, match=r"no samples to train on; .*--goal accurate"):
        jobs.init(Wish(**{**told, "goal": "fastest"}))
    with pytest.raises(DataError, match=r"no samples to train on; .*--goal accurate"):
        jobs.init(Wish(**told, weights="none"))
    jobs.init(Wish(**told))
    made = recipe.load("recipe.yaml")
    assert (made.task.name, made.task.options) == ("imagenet", {"calibration": 128})
    assert kinds(made) == [Quantize]
    assert made.steps[0].max_drop is None  # there is nothing to choose by


def test_the_command_asks_on_a_terminal_only(here, monkeypatch, capsys):
    write_net(here, text=NET + NET.replace("class Net", "class Other"))
    write_photos(here / "photos")
    assert main(["init"]) == 2
    assert "give --model" in capsys.readouterr().err
    answers = iter(["2", "accurate"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", lambda *arguments, **options: next(answers))
    assert main(["init"]) == 0
    assert recipe.load("recipe.yaml").model.name == "Other"
    assert kinds(recipe.load("recipe.yaml"))[-1] is Quantize
    printed = capsys.readouterr()
    assert "1  net.py:Net" in printed.err
    assert "lianzhi compress recipe.yaml -o out/recipe" in printed.out
    assert main(["init", "--json", "-o", "x.yaml"]) == 2  # machines are not asked
    assert main(["init", "--json", "--model", "net.py:Net", "-o", "x.yaml", "--seed", "3"]) == 0
    written = json.loads(capsys.readouterr().out.rpartition('"exit_code": 2\n}\n')[2])
    assert written["recipe"] == "x.yaml"
    assert recipe.load("x.yaml").seed == 3


def test_a_number_chooses_and_other_text_is_the_answer(monkeypatch):
    from lianzhi.cli import init

    missing = Missing("--model", "Which?", (("a", "first"), ("b", "second")))
    for typed, meant in (("2", "b"), (" resnet20 ", "resnet20"), ("7", "7")):
        monkeypatch.setattr("typer.prompt", lambda *arguments, typed=typed, **options: typed)
        assert init.ask(missing) == meant
