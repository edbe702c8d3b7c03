"""PyTorch in OneFlow's place: the written source uses what both libraries have under the same names."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
import types
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lianzhi import graph
from lianzhi.deploy import oneflow
from lianzhi.deploy.oneflow.code import Source, write_source


class _Flow(types.ModuleType):
    """PyTorch, but for the reading of checkpoints."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def load(folder: str) -> dict[str, Tensor]:
        return oneflow.read(folder)


STANDING_IN = {
    "oneflow": _Flow("oneflow"),
    "oneflow.nn": torch.nn,
    "oneflow.nn.functional": torch.nn.functional,
}


def written(module: nn.Module, inputs: Any) -> Source:
    """The source of a module, captured with a batch of one."""
    one = pytree.tree_map(lambda value: value[:1], inputs)
    captured = graph.capture(module, one, dynamic_length=graph.are_tokens(inputs))
    assert captured.dynamic_batch
    return write_source(captured)


def run_as_torch(source: Source) -> nn.Module:
    """The model of a source, by PyTorch, with its weights, in eval mode."""
    names: dict[str, Any] = {}
    with mock.patch.dict(sys.modules, STANDING_IN):
        exec(compile(source.text, "model.py", "exec"), names)
    model: nn.Module = names["Model"]()
    model.load_state_dict(source.tensors)
    return model.eval()


def assert_same(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """The same tensors, types included, wherever they are."""
    one, other = pytree.tree_leaves(found), pytree.tree_leaves(expected)
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert isinstance(left, Tensor)
        torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance, equal_nan=True)


def run_script(folder: Path, *inputs: object) -> list[list[str]]:
    """What a folder's run_in_oneflow.py prints: the fields of each line."""
    printed = io.StringIO()
    with (
        mock.patch.dict(sys.modules, STANDING_IN),
        mock.patch.object(sys, "argv", ["run_in_oneflow.py", *map(str, inputs)]),
        mock.patch.object(sys, "path", [str(folder), *sys.path]),
        contextlib.redirect_stdout(printed),
    ):
        sys.modules.pop("model", None)
        runpy.run_path(str(folder / "run_in_oneflow.py"), run_name="__main__")
    return [line.split("\t") for line in printed.getvalue().splitlines()]


def same_lines(lines: list[list[str]], predictions: list[dict[str, Any]]) -> None:
    """The script prints what `lianzhi predict` says: names in their order, probabilities to four places."""
    expected = [
        (item["input"], one["name"], one["probability"]) for item in predictions for one in item["classes"]
    ]
    assert [(line[0], line[-2]) for line in lines] == [(given, name) for given, name, _ in expected]
    for line, (_, _, probability) in zip(lines, expected, strict=True):
        assert abs(float(line[-1]) - probability) < 1e-4
