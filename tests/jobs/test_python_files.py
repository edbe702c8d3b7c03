"""Which classes and functions make a model: by reading the file, whatever running it would do."""

from __future__ import annotations

import pytest

from lianzhi.errors import RecipeError
from lianzhi.jobs.init.python_files import REQUIRED, Maker, makers, named

SEVERAL = """
raise SystemExit("this file must not run")
import torch.nn as nn
from torch.nn import Module

class Block(nn.Module):
    def __init__(self, width): ...

class Base(Module):
    def __init__(self, num_classes=10, *, width=16, act=nn.ReLU): ...

class Net(Base):
    def forward(self, x):
        return Block(3)(x)

class FocalLoss(nn.Module):
    pass

class _Hidden(nn.Module):
    pass

class Reader:
    pass

def helper(x):
    return x + 1
"""


def write(tmp_path, text):
    file = tmp_path / "net.py"
    file.write_text(text)
    return file


def test_parts_losses_and_other_classes_are_not_offered(tmp_path):
    (net,) = makers(write(tmp_path, SEVERAL))
    assert net == Maker("Net", {"num_classes": 10, "width": 16, "act": None})


@pytest.mark.parametrize(
    "body",
    [
        "def make(num_classes, depth=3) -> nn.Module:\n    return build(depth)",
        "def make(num_classes, depth=3) -> 'torch.nn.Module':\n    return build(depth)",
        "def make(num_classes, depth=3):\n    return Net(depth)",
        "def make(num_classes, depth=3):\n    net = Net(depth)\n    net.eval()\n    return net",
        "def make(num_classes, depth=3):\n    return nn.Sequential(nn.Linear(2, depth))",
    ],
)
def test_functions_that_give_a_module(tmp_path, body):
    text = f"import torch\nfrom torch import nn\nclass Net(nn.Module):\n    pass\n{body}\n"
    found = makers(write(tmp_path, text))
    assert found[0] == Maker("make", {"num_classes": REQUIRED, "depth": 3})
    assert found[0].required == ["num_classes"]


@pytest.mark.parametrize(
    "body",
    [
        "def train():\n    net = Net()\n    return net.loss",
        "def outer():\n    def inner():\n        return Net()\n    return 3",
        "def make():\n    return 3",
    ],
)
def test_functions_that_give_something_else(tmp_path, body):
    text = f"from torch import nn\nclass Net(nn.Module):\n    pass\n{body}\n"
    assert [maker.name for maker in makers(write(tmp_path, text))] == ["Net"]


def test_keywords_and_names_that_are_told(tmp_path):
    file = write(
        tmp_path,
        "from torchvision.models import resnet18\ndef odd(a, /, b=[1], *, c, **rest):\n    return 1\n",
    )
    assert makers(file) == []
    assert named(file, "odd") == Maker("odd", {"a": REQUIRED, "b": [1], "c": REQUIRED}, takes_any=True)
    assert named(file, "resnet18").takes_any
    with pytest.raises(RecipeError, match=r"net.py has no function or class 'Nett'; .*: nothing"):
        named(file, "Nett")


@pytest.mark.parametrize("text", ["def broken(:\n", "x = 1\nif True:\nprint(1)\n", "\x00"])
def test_what_is_no_python_is_named(tmp_path, text):
    with pytest.raises(RecipeError, match=r"net\.py.*"):
        makers(write(tmp_path, text))
