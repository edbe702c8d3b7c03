"""A saved classifier of images is evaluated on, and compressed with, data whose classes have its own numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from lianzhi import artifact, cli, jobs
from lianzhi.errors import DataError

LEVELS = {"black": 0, "grey": 128, "white": 255}


class Levels(nn.Module):
    """Tells how bright an image is."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 3)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[-9.0], [0.0], [9.0]]))
            self.head.bias.copy_(torch.tensor([0.0, 3.0, 0.0]))

    def forward(self, x):
        return self.head(x.mean((1, 2, 3))[:, None])


@pytest.fixture
def folder(tmp_path):
    return artifact.save(
        Levels().eval(), tmp_path / "model", example_inputs=torch.zeros(1, 3, 8, 8), labels=list(LEVELS)
    )


def write(place, names):
    """Four images a class, and one class that has none where a name ends in a dash."""
    for name in names:
        (place / name.rstrip("-")).mkdir(parents=True)
        for number in range(0 if name.endswith("-") else 4):
            pixels = np.full((8, 8, 3), LEVELS.get(name, 0), np.uint8)
            Image.fromarray(pixels).save(place / name / f"{number}.png")
    return str(place)


def evaluated(folder, data):
    options = {"validation": 0, "calibration": 0, "test": 0, "mean": [0.5] * 3, "std": [0.5] * 3}
    return jobs.evaluate(
        folder, task="image_folder", data=data, split="train", options=options, progress=False
    )


def test_all_classes_and_one_without_images(folder, tmp_path):
    assert evaluated(folder, write(tmp_path / "all", LEVELS))["value"] == 1.0
    assert evaluated(folder, write(tmp_path / "two", ["black", "grey-", "white"]))["value"] == 1.0


def test_another_class_of_a_number_is_refused(folder, tmp_path):
    """Numbered anew, white would be grey, and the accuracy a half."""
    match = r"calls class 1 'grey', and the task 'image_folder' on .* 'white'.*: black, grey, white \(of a class without"
    with pytest.raises(DataError, match=match):
        evaluated(folder, write(tmp_path / "two", ["black", "white"]))
    with pytest.raises(DataError, match=r"calls class 0 'black', .* 'blue'"):
        evaluated(folder, write(tmp_path / "other", ["blue", "grey", "white"]))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["black", "grey", "white"], None),
        (["blue", "grey", "white"], "calls class 0 'black', and the task 'blue'"),
        (["black", "white"], "has 3 classes by name, and the task 'image_folder' 2"),
    ],
)
def test_a_recipe(folder, tmp_path, capsys, names, said):
    values = {
        "model": {"artifact": str(folder)},
        "task": {"name": "image_folder", "data": write(tmp_path / "data", names), "validation": 0},
        "target": "pytorch",
        "steps": [{"train": {"epochs": 1}}],
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
    assert cli.main(["train", str(tmp_path / "r.yaml"), "--dry-run"]) == (2 if said else 0)
    assert said is None or said in capsys.readouterr().err
