"""Run a model on tensors that have shapes but no memory: what fits, what comes out, how large it gets.

A saved model is built and run this way before its weights are read, so that a file that asks for a huge
tensor, or whose shapes do not fit, is refused before memory is allocated.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from lianzhi.errors import ArtifactError, GraphError
from lianzhi.files import TensorInfo
from lianzhi.graph.structure import describe, walk
from lianzhi.graph.values import DTYPES

MAX_INPUT = 1 << 30
MIN_LIMIT = 2 << 30
OPS_PER_TENSOR = 300
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def input_tree(example_inputs: Any, free: Callable[[Tensor], int]) -> Any:
    """Describe example inputs; the first dimensions of a tensor, as many as `free` says, become null.

    Of a second one that is free, the example's is kept beside: it is a typical length.
    """

    def leaf(value: Any) -> Any:
        if isinstance(value, Tensor):
            shape: list[int | None] = list(value.shape)
            count = min(free(value), len(shape))
            shape[:count] = [None] * count
            length = {"length": value.shape[1]} if count > 1 and value.shape[1] > 0 else {}
            return {"shape": shape, "dtype": _name(value.dtype), **length}
        if value is None or type(value) in (bool, int, float):
            return {"constant": value}
        raise GraphError(f"example_inputs hold a {type(value).__name__}; give tensors, numbers or None")

    return describe(example_inputs, leaf)


def make_inputs(tree: Any, make: Callable[[tuple[int, ...], torch.dtype], Tensor]) -> Any:
    """Inputs of the described shapes, of a batch of one and the example's length where they are free; `make` makes each tensor."""

    def leaf(content: Any) -> Any:
        if content.keys() == {"constant"} and not isinstance(content["constant"], (dict, list, str)):
            return content["constant"]
        length = content.get("length", 1)
        known = content.keys() - {"length"} == {"shape", "dtype"} and isinstance(content["shape"], list)
        if not known or type(length) is not int or length < 1:
            raise ArtifactError(f"{str(content)[:80]} does not describe an input")
        free = (1, length)  # batch, and length in tokens
        shape = [
            free[index] if index < len(free) and size is None else size
            for index, size in enumerate(content["shape"])
        ]
        dtype = DTYPES.get(content["dtype"]) if isinstance(content["dtype"], str) else None
        if dtype is None or not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 16:
            raise ArtifactError(f"{str(content)[:80]} does not describe an input")
        count = dtype.itemsize
        for size in shape:
            count *= size
            if count > MAX_INPUT:
                raise ArtifactError(f"an input of shape {content['shape']} has more than {MAX_INPUT:,} bytes")
        return make(tuple(shape), dtype)

    return walk(tree, leaf)


def output_tree(outputs: Any) -> Any:
    """Types and shapes of what a model returned."""

    def leaf(value: Any) -> Any:
        if isinstance(value, Tensor):
            return {"shape": [int(size) for size in value.shape], "dtype": _name(value.dtype)}
        return {"constant": value if value is None or isinstance(value, (bool, int)) else str(value)}

    return {"leaves": [leaf(value) for value in pytree.tree_leaves(outputs)]}


def _name(dtype: torch.dtype) -> str:
    if dtype not in _NAMES:
        raise GraphError(f"tensors of type {dtype} cannot be inputs or outputs of an artifact")
    return _NAMES[dtype]


def call(module: nn.Module, inputs: Any) -> Any:
    """Call a module with example inputs: a tensor, a tuple, or a dict of keyword arguments."""
    if isinstance(inputs, dict):
        return module(**inputs)
    if isinstance(inputs, (tuple, list)):
        return module(*inputs)
    return module(inputs)


def dry_run(
    build: Callable[[dict[str, Tensor]], nn.Module],
    table: dict[str, TensorInfo],
    ties: dict[str, str],
    inputs: Any,
    *,
    trusted: bool = False,
) -> tuple[nn.Module, Any]:
    """Build the module around tensors without memory and run it; return it and what came out, described.

    Where the data decide how much an op makes, a model whose code is `trusted` is run with the most; another is refused.
    """
    weights = sum(_bytes(info) for info in table.values())
    watch = _Watch(max(MIN_LIMIT, 8 * weights), OPS_PER_TENSOR * (len(table) + 50), trusted=trusted)
    with no_memory(), watch:
        tensors = {name: torch.empty(info.shape, dtype=info.dtype) for name, info in table.items()}
        tensors.update({alias: tensors[name] for alias, name in ties.items()})
        module = build(tensors)
        watch.operations = math.inf  # the run itself has as many as the graph has nodes
        _no_stray(module, {id(tensor) for tensor in tensors.values()})
        module.eval()
        outputs = call(module, make_inputs(inputs, lambda shape, dtype: torch.empty(shape, dtype=dtype)))
        return module, output_tree(outputs)


@contextlib.contextmanager
def no_memory() -> Iterator[None]:
    """Tensors made in the block have shapes and types, and no memory.

    >>> with no_memory(): torch.zeros(1 << 40).shape
    torch.Size([1099511627776])
    """
    with warnings.catch_warnings(), torch.no_grad(), FakeTensorMode():
        warnings.simplefilter("ignore")
        yield


def _bytes(info: TensorInfo) -> int:
    count = info.dtype.itemsize
    for size in info.shape:
        count *= size
    return count


def _no_stray(module: nn.Module, known: set[int]) -> None:
    """Every tensor of the module has to be among those that will be read from the file."""
    for path, child in module.named_modules():
        for name, value in vars(child).items():
            held = value if isinstance(value, (list, tuple)) and not name.startswith("_") else [value]
            if any(isinstance(item, FakeTensor) and id(item) not in known for item in held):
                raise ArtifactError(f"'{path}' keeps the tensor '{name}' outside its parameters and buffers")


class _Watch(TorchDispatchMode):
    """Refuse results that are too large, and too many operations."""

    def __init__(self, limit: int, operations: float, *, trusted: bool) -> None:
        super().__init__()
        self.limit, self.operations, self.trusted = limit, operations, trusted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            result = func(*args, **(kwargs or {}))
        except DynamicOutputShapeException:
            result = _at_most(func, args, self.trusted)
        self.operations -= 1
        if self.operations == 0:
            raise ArtifactError("the architecture has many more layers than the weights file has tensors")
        for value in pytree.tree_leaves(result):
            if isinstance(value, Tensor) and value.numel() * value.element_size() > self.limit:
                raise ArtifactError(f"{func} would make a tensor of shape {tuple(value.shape)}")
        return result


def _at_most(func: Any, args: Any, trusted: bool) -> Any:
    """The longest result that an op can give whose length is up to the data: of a mask that is true everywhere, say."""
    if trusted and func == torch.ops.aten.unique_consecutive.default:
        values = args[0].flatten()
        return values, torch.zeros_like(args[0], dtype=torch.long), torch.zeros_like(values, dtype=torch.long)
    if not trusted or func != torch.ops.aten.index.Tensor:
        raise ArtifactError(f"how much {func} makes of its input is up to the data")
    picked = []
    for index in args[1]:
        mask = index is not None and index.dtype in (torch.bool, torch.uint8)
        picked += [torch.arange(index.numel())] * index.ndim if mask else [index]
    return func(args[0], picked)
