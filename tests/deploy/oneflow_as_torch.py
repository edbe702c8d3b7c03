"""PyTorch in OneFlow's place: the written source uses what both libraries have under the same names."""

from __future__ import annotations

import sys
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lianzhi import graph
from lianzhi.deploy.oneflow.code import Source, write_source

STANDING_IN = {"oneflow": torch, "oneflow.nn": torch.nn, "oneflow.nn.functional": torch.nn.functional}


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
