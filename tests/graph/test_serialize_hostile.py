"""A graph in JSON that is damaged or hostile: refused, for the right reason, and no code of it runs."""

from __future__ import annotations

import copy
import functools
import json
import operator
import re
from typing import Any

import pytest
import torch
from torch import nn

from lianzhi.errors import ArtifactError
from lianzhi.graph import capture, get_tensor
from lianzhi.graph.deserialize import plain_name
from lianzhi.graph.serialize import from_json, to_json
from lianzhi.graph.sizes import FUNCTIONS


class Small(nn.Module):
    """Convolution, BatchNorm, a size, and an op with several results."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = torch.relu(self.bn(self.conv(x))).chunk(2, dim=1)
        return (left * right).mean((2, 3)).view(x.shape[0], -1)


def saved() -> tuple[Any, dict[str, torch.Tensor]]:
    module = capture(Small(), torch.randn(2, 3, 8, 8)).module
    data = json.loads(json.dumps(to_json(module)))
    return data, {name: get_tensor(module, name).detach() for name in data["tensors"]}


DATA, TENSORS = saved()


def call(data: Any, target: str) -> Any:
    return next(node for node in data["nodes"] if node.get("target") == target)


def hostile(change: Any, message: str) -> None:
    """Change the saved graph and load it: it has to be refused, and for this reason."""
    data = copy.deepcopy(DATA)
    change(data)
    with pytest.raises(ArtifactError) as caught:
        from_json(data, TENSORS)
    assert "is damaged or not made by Lianzhi" in str(caught.value)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert len(str(caught.value)) < 600


INJECTIONS = [
    "x=[{code}]",
    "x, y={code}",
    "x: {code}",
    "x # \n    {code}",
    "x):\n    {code}\n#",
    'x", {code}) #',
    "x' : {code}}} #",
    "*{code}",
    "{code}",
]


@pytest.mark.parametrize("text", INJECTIONS)
def test_names_cannot_carry_code(tmp_path, text):
    """fx writes the names of nodes, arguments and tensors into Python code, which it runs."""
    path = tmp_path / "run"
    text = text.replace("{code}", f"__import__('pathlib').Path({str(path)!r}).write_text('x')")

    def everywhere(old: str) -> Any:
        whole = json.dumps(DATA).replace(json.dumps(old), json.dumps(text))
        return lambda data: data.update(json.loads(whole))

    for old in ("x", "conv2d", "conv_weight"):
        hostile(everywhere(old), "is not a plain name")
    hostile(lambda data: data["arguments"][0].__setitem__(0, text), "is not a plain name")
    hostile(lambda data: call(data, "aten.conv2d.default")["kwargs"].update({text: 1}), "does not take")
    hostile(lambda data: call(data, "aten.conv2d.default").update(target=text), "not on the allow-list")
    hostile(lambda data: data["nodes"][0].update(tensor=text), "is not saved")
    for name in (f"conv.{text}", f"{text}.weight", text):
        tensors = {name if old == "conv.weight" else old: value for old, value in TENSORS.items()}
        data = json.loads(json.dumps(DATA).replace('"conv.weight"', json.dumps(name)))
        with pytest.raises(ArtifactError, match="is not a tensor's name"):
            from_json(data, tensors)
    assert not path.exists()


@pytest.mark.parametrize(
    "name", ["self", "import", "__class__", "", "a b", "a.b", "\u043f", "x\u0301", "a" * 300, None, 3, ["x"]]
)
def test_names_that_are_not_plain(name):
    with pytest.raises(ArtifactError, match="is not a plain name"):
        plain_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "forward",
        "training",
        "_parameters",
        "meta",
        "graph",
        "_graph",
        "_code",
        "train",
        "a..b",
        ".a",
        "a.",
        "conv.forward",
        "conv.weight.data",
        "",
        "__class__.a",
        "bn.class",
        "bn.ﬁ",
    ],
)
def test_tensor_names_that_hide_something_of_the_module(name):
    tensors = {**TENSORS, name: torch.zeros(1)}
    with pytest.raises(ArtifactError):
        from_json({**DATA, "tensors": {**DATA["tensors"], name: "parameter"}}, tensors)


@pytest.mark.parametrize(
    "target",
    [
        "aten.from_file.default",
        "aten.set_.source_Tensor",
        "aten.as_strided.default",
        "aten.resize_.default",
        "aten.relu.out",
        "aten.relu",
        "relu",
        "os.system",
        "operator.attrgetter",
        "builtins.eval",
        "torch.load",
        "aten.__class__.default",
        "aten.conv2d.__class__",
        "higher_order.cond",
        None,
        3,
        ["aten.relu.default"],
    ],
)
def test_ops_off_the_list(target):
    hostile(lambda data: call(data, "aten.relu.default").update(target=target), "not on the allow-list")


def args(target: str, *values: Any) -> Any:
    return lambda data: call(data, target).update(args=list(values))


def keywords(data: Any, **more: Any) -> None:
    call(data, "aten.relu.default")["kwargs"].update(more)


def deep(depth: int) -> Any:
    tree: Any = {"value": None}
    for _ in range(depth):
        tree = {"tuple": [tree]}
    return tree


X, WEIGHT, CHUNK = {"node": "x"}, {"node": "conv_weight"}, {"node": "chunk"}
SIZE = {"node": call(DATA, "aten.sym_size.int")["name"]}
COUNTER = "bn.num_batches_tracked"
WRONG = {
    "too few arguments": ("needs 'weight'", args("aten.conv2d.default", X)),
    "too many arguments": ("takes 1 arguments, got 3", args("aten.relu.default", X, X, X)),
    "a string for a tensor": ("takes Tensor as 'self', got x", args("aten.relu.default", "x")),
    "a dtype for a tensor": ("takes Tensor", args("aten.relu.default", {"dtype": "float32"})),
    "a size for a tensor": ("takes Tensor", args("aten.conv2d.default", SIZE, WEIGHT)),
    "a tensor for sizes": ("takes .*int.* as 'dim', got x", args("aten.mean.dim", X, X)),
    "a float for an integer": ("as 'dim', got", args("aten.mean.dim", X, [{"float": 2.0}])),
    "a bool for an integer": ("as 'dim', got", args("aten.mean.dim", X, [True])),
    "several tensors for one": ("takes Tensor", args("aten.mul.Tensor", CHUNK, X)),
    "itself": ("uses 'relu' before", args("aten.relu.default", {"node": "relu"})),
    "a later node": ("uses 'relu' before", args("aten.conv2d.default", {"node": "relu"}, WEIGHT)),
    "an unknown tag": ("not an argument that", args("aten.relu.default", {"object": "x"})),
    "two tags": ("not an argument that", args("aten.relu.default", {"node": "x", "float": 1})),
    "an unknown dtype": ("not an argument that", args("aten.relu.default", {"dtype": "quint8"})),
    "another device": ("not an argument that", args("aten.relu.default", {"device": "cuda:0"})),
    "a list too deep": ("not an argument that", args("aten.relu.default", [[[[[[X]]]]]])),
    "code in a string": ("not an argument of any", args("aten.conv2d.default", X, WEIGHT, "'; import os")),
    "an argument twice": ("does not take 'self'", lambda data: keywords(data, self=X)),
    "an unknown keyword": ("does not take 'out'", lambda data: keywords(data, out=X)),
    "no list of arguments": ("no list of arg", lambda data: call(data, "aten.relu.default").update(args=X)),
    "pick by a node": ("does not pick", args("operator.getitem", CHUNK, SIZE)),
    "pick by a string": ("does not pick", args("operator.getitem", CHUNK, "__class__")),
    "pick from a tensor": ("does not pick", args("operator.getitem", X, 0)),
    "a node twice": ("two nodes", lambda data: data["nodes"].append(data["nodes"][0])),
    "a node with more": ("is not a node", lambda data: data["nodes"][0].update(code="x")),
    "a node of another kind": ("is not a node", lambda data: data["nodes"][0].update(op="call_module")),
    "a string for a node": ("is not a node", lambda data: data["nodes"].append("x")),
    "an op that is a list": ("is not a node", lambda data: data["nodes"][0].update(op=[])),
    "no nodes": ("it needs", lambda data: data.update(nodes={})),
    "too many nodes": ("at most", lambda data: data.update(nodes=data["nodes"] * 20_000)),
    "a key more": ("it needs", lambda data: data.update(code="x")),
    "no input": ("not the inputs", lambda data: data.update(arguments=[], positional=0)),
    "an input more": ("not the inputs", lambda data: data["arguments"].append(["y", {"input": "y"}])),
    "an argument twice by name": ("same name", lambda data: data["arguments"].append(["x", {"input": "y"}])),
    "arguments of no tree": ("does not describe", lambda data: data.update(arguments=[["x", 3]])),
    "positional beyond": ("not described", lambda data: data.update(positional=9)),
    "an output not there": ("uses 'y' before", lambda data: data.update(outputs={"value": {"node": "y"}})),
    "an output of several": ("is several", lambda data: data.update(outputs={"value": CHUNK})),
    "an output too deep": ("does not describe", lambda data: data.update(outputs=deep(200))),
    "a tensor not saved": ("is not saved", lambda data: data["nodes"][0].update(tensor="conv.secret")),
    "a module for a tensor": ("is not saved", lambda data: data["nodes"][0].update(tensor="conv")),
    "a list for a tensor": ("is not saved", lambda data: data["nodes"][0].update(tensor=["conv.weight"])),
    "an unknown kind": ("known are", lambda data: data["tensors"].update({"conv.weight": "code"})),
    "a kind that is a list": ("known are", lambda data: data["tensors"].update({"conv.weight": []})),
    "tensors missing": ("those of the weights", lambda data: data["tensors"].pop("conv.weight")),
    "tensors no table": ("those of the weights", lambda data: data.update(tensors=[])),
    "a gradient of integers": (
        "has no gradient",
        lambda data: data["tensors"].update({COUNTER: "parameter"}),
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_the_schema(what):
    message, change = WRONG[what]
    hostile(change, message)


@pytest.mark.parametrize("data", [None, 3, "x", [], {}, [[]], {"nodes": []}])
def test_what_is_no_graph(data):
    with pytest.raises(ArtifactError, match="it needs"):
        from_json(data, {})


def compute(name: str, target: str, *values: Any) -> dict[str, Any]:
    return {"op": "call", "name": name, "target": target, "args": list(values), "kwargs": {}}


def test_sizes_cannot_fill_the_memory():
    """Squaring a size over and over, a list times a number, a size to a power."""

    def squares(data: Any) -> None:
        last = SIZE
        for index in range(40):
            data["nodes"].append(compute(f"s{index}", "operator.mul", last, last))
            last = {"node": f"s{index}"}

    hostile(squares, "more than 900 bits")
    for message, target, values in (
        ("computes with sizes only, and 'chunk'", "operator.mul", [CHUNK, 1 << 40]),
        ("exponent from 0 to 4", "operator.pow", [SIZE, 1 << 40]),
        ("exponent from 0 to 4", "operator.pow", [SIZE, SIZE]),
        ("computes with sizes only, got 'a'", "operator.add", ["a", "b"]),
        ("computes with sizes only, and 'x'", "torch.sym_sum", [[X]]),
        ("takes 2 sizes", "operator.mul", [SIZE]),
    ):
        hostile(lambda data, node=compute("bomb", target, *values): data["nodes"].append(node), message)


def test_sizes_that_models_compute_are_allowed():
    data = copy.deepcopy(DATA)
    data["nodes"].append(compute("twice", "operator.mul", SIZE, 2))
    data["outputs"] = {"tuple": [{"value": {"node": "twice"}}]}
    assert from_json(data, TENSORS)(torch.zeros(3, 3, 8, 8)) == (6,)


def test_the_list_of_sizes_is_of_functions_of_numbers():
    assert not {operator.attrgetter, operator.methodcaller, operator.lshift} & set(FUNCTIONS.values())
    assert {name.split(".")[0] for name in FUNCTIONS} == {"operator", "torch", "math"}


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 3, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x)[0]


@functools.cache
def recurrent() -> tuple[nn.Module, Any, dict[str, torch.Tensor]]:
    model = Recurrent().eval()
    module = capture(model, torch.randn(2, 5, 4)).module
    data = json.loads(json.dumps(to_json(module)))
    return model, data, {name: get_tensor(module, name).detach() for name in data["tensors"]}


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (2, "none"),
        (2, "three"),
        (4, 1),
        (4, 3),
        (4, 0),
        (4, -1),
        (4, 1 << 40),
        (3, False),
        (7, False),
        (1, "none"),
    ],
)
def test_a_recurrent_layer_with_too_few_weights_does_not_end_the_process(position, value):
    model, data, tensors = recurrent()
    data = copy.deepcopy(data)
    x = torch.randn(3, 5, 4)
    with torch.no_grad():
        assert torch.equal(from_json(data, tensors)(x), model(x))
    arguments = call(data, "aten.lstm.input")["args"]
    cut = {"none": [], "three": arguments[2][:3]}
    arguments[position] = cut.get(value, value)
    with pytest.raises(ArtifactError, match="aten::lstm"):
        from_json(data, tensors)
