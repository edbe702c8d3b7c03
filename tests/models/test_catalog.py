"""Models by name: configs, defaults, descriptions, errors."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from lianzhi import models
from lianzhi.errors import RecipeError
from lianzhi.models.options import ModelConfig

NAMES = [
    name for name in models.registry.names() if issubclass(models.registry.get(name).config, ModelConfig)
]


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_says_what_it_is(name):
    entry = models.registry.get(name)
    assert entry.config is not None
    assert issubclass(entry.config, ModelConfig)
    assert 10 < len(entry.summary) < 120
    assert entry.paper.startswith("https://") or name.startswith("dnn_")


@pytest.mark.parametrize("name", NAMES)
def test_a_description_builds_the_same_model_again(name):
    with torch.device("meta"):
        first = models.model(name, num_classes=7)
        described = models.describe(first)
        config = json.loads(json.dumps(described["config"]))
        second = models.model(described["name"], **config)
    assert described["config"]["num_classes"] == 7
    assert models.describe(second) == described
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (first, second)]
    assert shapes[0] == shapes[1]


def test_a_description_is_a_copy():
    model = models.model("lenet5")
    models.describe(model)["config"]["num_classes"] = 3
    assert models.describe(model)["config"]["num_classes"] == 10


def test_a_module_of_ones_own_has_no_description_and_no_input_shape():
    assert models.describe(nn.Linear(2, 2)) is None
    with pytest.raises(RecipeError, match="Linear is not a model of the zoo"):
        models.input_shape(nn.Linear(2, 2))


def test_input_shape_follows_the_config():
    assert models.input_shape(models.model("resnet20", in_channels=1, image_size=28)) == (1, 28, 28)
    with torch.device("meta"):
        assert models.input_shape(models.model("inception_v3")) == (3, 299, 299)


def test_weights_are_drawn_from_the_generator():
    torch.manual_seed(3)
    first = models.model("resnet20").state_dict()
    torch.manual_seed(3)
    second = models.model("resnet20").state_dict()
    third = models.model("resnet20").state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], third["conv1.weight"])


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("resnet_20", {}, "did you mean 'resnet20'"),
        ("resnet20", {"width": (8, 16, 32)}, "unknown option 'width'; did you mean 'widths'"),
        ("resnet20", {"widths": (32, 16, 8)}, "widths that do not fall"),
        ("resnet20", {"widths": (16, 32)}, "widths"),
        ("resnet20", {"num_classes": 0}, "num_classes"),
        ("resnet20", {"num_classes": 1 << 40}, "num_classes"),
        ("fashion_resnet", {"widths": (32, 64)}, "widths has 2 stages and blocks 3"),
        ("fashion_resnet", {"blocks": (2, 2, 10**9)}, "blocks"),
        ("dnn_2", {"hidden": (128, 0)}, "hidden"),
        ("lenet5", {"image_size": 8}, "16 pixels or more"),
        ("inception_v3", {"image_size": 32}, "image_size"),
        ("alexnet", {"dropout": 1.0}, "dropout"),
    ],
)
def test_a_wrong_option_is_named(name, config, message):
    with pytest.raises(RecipeError, match=message):
        models.model(name, **config)


def test_configs_are_frozen():
    config = models.registry.get("resnet20").config()
    with pytest.raises(ValueError, match="frozen"):
        config.num_classes = 3
