"""OneFlow source without OneFlow: what is written of each operation, how it is named, and what is refused.

PyTorch stands in for OneFlow, whose names the source uses are its own; tests/oneflow has the same cases run by the real one.
"""

from __future__ import annotations

import ast

import pytest
import torch
import torch.nn.functional as F
from oneflow_as_torch import assert_same, run_as_torch, written
from oneflow_cases import CASES, HOSTILE, Applied, images, rows
from torch import nn

from lianzhi import graph
from lianzhi.deploy.oneflow.code import write_source
from lianzhi.deploy.oneflow.code.names import path
from lianzhi.deploy.oneflow.code.table import TABLE
from lianzhi.errors import TargetError
from lianzhi.graph.allowed_ops import ATEN
from lianzhi.graph.sizes import FUNCTIONS

GLOBALS = {"flow", "F", "math", "Part", "Model", "PARAMETERS", "BUFFERS", "TIES"}


@pytest.mark.parametrize("name", CASES)
def test_the_source_computes_what_the_module_does(name):
    module, inputs = CASES[name]()
    source = written(module, inputs)
    model = run_as_torch(source)
    assert set(model.state_dict()) >= set(module.state_dict())
    with torch.no_grad():
        assert_same(model(*inputs), module(*inputs))


def test_every_operation_of_the_table_can_be_in_a_graph():
    assert {name for name in TABLE if name != "operator.getitem"} <= ATEN | set(FUNCTIONS)


def test_names_shapes_and_kinds_are_the_modules():
    net = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Sequential(nn.Flatten(), nn.Linear(294, 2)))
    model = run_as_torch(written(net, images()))
    described = [
        {key: (value.shape, value.dtype) for key, value in one.state_dict().items()} for one in (model, net)
    ]
    assert described[0] == described[1]
    assert dict(model.named_parameters()).keys() == dict(net.named_parameters()).keys()
    assert dict(model.named_buffers()).keys() == dict(net.named_buffers()).keys()


def test_it_trains_as_the_module_does():
    net = nn.Sequential(
        nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, momentum=0.3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()
    )
    model = run_as_torch(written(net.eval(), images())).train()
    for one in (net.train(), model):
        torch.manual_seed(0)
        one(images()).square().sum().backward()
    for key, value in net.named_parameters():
        torch.testing.assert_close(dict(model.named_parameters())[key].grad, value.grad)
    torch.testing.assert_close(model.state_dict()["1.running_var"], net.state_dict()["1.running_var"])


def test_short_constants_stand_in_the_text_and_long_ones_among_the_weights():
    module, inputs = CASES["held"]()
    source = written(module, inputs)
    assert source.tensors.keys() - module.state_dict().keys() == {"bare", "unsaved"}
    assert "flow.arange(0, 200" in source.text
    assert "TIES = {\n    'tied': 'weight',\n}" in source.text
    model = run_as_torch(source)
    assert model["tied"] is model["weight"]


def test_an_output_that_is_a_dict_keeps_its_keys():
    module, inputs = CASES["held"]()
    assert list(run_as_torch(written(module, inputs))(*inputs)) == ["sum", "product", "order", "flags"]


def _names(text: str) -> tuple[set[str], set[str]]:
    """Names that the source reads, and names that it gives a value or a definition."""
    tree = ast.parse(text)
    loads = {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    stores = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
    }
    stores |= {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    return loads, stores | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}


def test_names_of_layers_and_arguments_are_quoted_or_plain():
    module, inputs = CASES["hostile names"]()
    text = written(module, inputs).text
    tree = ast.parse(text)
    imported = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    ]
    assert imported == ["oneflow", "functional"]
    loads, stores = _names(text)
    assert loads <= stores | GLOBALS | {"super", "str", "KeyError", "isinstance"}
    table = next(
        node for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "PARAMETERS"
    )  # type: ignore[attr-defined]
    assert set(ast.literal_eval(table.value)) == {
        f"{name}.{leaf}" for name in HOSTILE for leaf in ("weight", "bias")
    }
    arguments = next(
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "forward"
    ).args
    assert [one.arg for one in arguments.args] == ["self", "value", "value_2"]


class _Reached:
    """Says by which names it was reached."""

    def __init__(self, names=()):
        self.names = names

    def __getitem__(self, name):
        return _Reached((*self.names, str(name)))

    __getattr__ = __getitem__


@pytest.mark.parametrize(
    "name",
    [*HOSTILE, 'x"); import os; ("', "a\\", "\n", "\u2028", "0x1", "00", "", "ﬁ", "_modules"],
)
def test_no_name_ends_its_place_in_the_source(name):
    text = "held" + path(["layer", name, "weight"])
    assert eval(text, {"__builtins__": {}}, {"held": _Reached()}).names == ("layer", name, "weight")
    assert text.isascii() or repr(name) in text


def test_an_operation_without_counterpart_is_named_with_its_layer():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.recurrent = nn.GRU(5, 4, batch_first=True)
            self.last = nn.Linear(4, 2)

        def forward(self, x):
            return torch.special.expm1(self.last(self.recurrent(x)[0]))

    with pytest.raises(TargetError) as raised:
        written(Net().eval(), rows())
    assert "aten.gru.input (at 'gru', in layer 'recurrent')" in str(raised.value)
    assert "aten.expm1" in str(raised.value) or "special_expm1" in str(raised.value)


def _changed_behind_a_view(self, x):
    y = self.layer(x)
    seen = y.flatten(1)
    F.relu_(y)
    return seen


REFUSED = {
    "changes in place what": Applied(_changed_behind_a_view, layer=nn.Conv2d(4, 4, 1)),
    "is torch.float16": Applied(lambda self, x: self.layer(x.half()), layer=nn.Conv2d(4, 4, 1).half()),
    "pads one side more": nn.Conv2d(4, 4, 2, padding="same"),
    "pads by 'circular'": nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
    "scales images of 9 x 9 by": nn.Upsample(scale_factor=1.5, mode="bilinear"),
}


def test_a_buffer_of_a_type_that_oneflow_has_not_is_named():
    net = nn.Linear(5, 4)
    net.register_buffer("steps", torch.zeros(4, dtype=torch.int16))
    with pytest.raises(TargetError, match=r"'steps' is torch\.int16, which OneFlow has not"):
        written(net.eval(), rows())


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_written_is_refused_with_the_reason(said):
    with pytest.raises(TargetError, match=said):
        written(REFUSED[said].eval(), images())


def test_inputs_in_a_dict_are_refused():
    class Net(nn.Module):
        def forward(self, given):
            return given["x"] * 2

    with pytest.raises(TargetError, match="an argument of its own"):
        write_source(graph.capture(Net(), ({"x": torch.zeros(1, 3)},)))
