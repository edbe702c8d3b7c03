"""Capture a model once, with `torch.export`, into ATen ops with real shapes.

The same capture serves pruning, the placement of quantizers, MACs, `inspect` and the artifact.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import itertools
import keyword
import logging
import sysconfig
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from lianzhi.errors import GraphError
from lianzhi.graph.any_length import any_length
from lianzhi.graph.mode import in_eval
from lianzhi.graph.module import TracedModule, adopt, get_tensor, put_constant
from lianzhi.graph.picked import settle
from lianzhi.graph.place import device_of, moved

Inputs = Any  # a tensor, a tuple of tensors, or a dict of keyword tensors
_OURS = Path(__file__).resolve().parent.parent
_STANDARD = Path(sysconfig.get_path("stdlib")).resolve()
_WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}
_TORCH = Path(torch.__file__).resolve().parent


@dataclass(frozen=True)
class Graph:
    """One capture of a model.

    `module` shares its parameters with `source`; `args` and `kwargs` are the example inputs, as the graph
    was traced with them (batch 2 where the batch is dynamic). With `dynamic_length` the second dimension of
    every input is free as well.
    """

    module: TracedModule
    source: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_batch: bool
    dynamic_length: bool = False

    @property
    def free_dims(self) -> int:
        """How many leading dimensions of every input are free."""
        return int(self.dynamic_batch) + int(self.dynamic_length)

    @property
    def nodes(self) -> list[fx.Node]:
        """The ops in order of execution."""
        return list(self.module.graph.nodes)

    @property
    def output_shape(self) -> tuple[int, ...] | None:
        """The shape of the output for the example inputs, if the model returns one tensor."""
        value = next(node for node in self.nodes if node.op == "output").args[0]
        while isinstance(value, (tuple, list)) and len(value) == 1:
            value = value[0]
        return shape_of(value) if isinstance(value, fx.Node) else None


def split_inputs(example_inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs as positional and keyword arguments.

    >>> split_inputs(torch.zeros(1))
    ((tensor([0.]),), {})
    """
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, dict):
        return (), dict(example_inputs)
    if isinstance(example_inputs, (tuple, list)):
        return tuple(example_inputs), {}
    raise GraphError(
        f"example_inputs must be a tensor, a tuple of tensors or a dict of tensors, "
        f"not {type(example_inputs).__name__}"
    )


def capture(
    model: nn.Module, example_inputs: Inputs, *, dynamic_batch: bool = True, dynamic_length: bool = False
) -> Graph:
    """Trace a model into a graph of ATen ops. The model is left as it is.

    >>> graph = capture(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.zeros(1, 4))
    >>> [node.target.__name__ for node in graph.nodes if node.op == "call_function"]
    ['linear.default', 'relu.default']

    Inputs are taken to where the model is. With `dynamic_batch` the first dimension of every input is free; where a
    model fixes it, it is traced with the batch of the example inputs. With `dynamic_length`, for inputs of tokens of shape (batch, tokens), the
    second dimension is free too. Raises `GraphError` that names the line of the model's code which
    cannot be captured, or a model that fixes the length.
    """
    _check_model(model)
    args, kwargs = split_inputs(example_inputs)
    if device_of(model).type != "cpu":
        args, kwargs = moved((args, kwargs), device_of(model))
    if dynamic_length:
        args, kwargs = _two_long((args, kwargs))
    with in_eval(model):
        if dynamic_length:
            program, dynamic = _export_tokens(model, *_of_two((args, kwargs))), True
        elif isinstance(model, TracedModule) and dynamic_batch:
            program, dynamic = _export(model, *_of_two((args, kwargs)), free=1), True
        elif dynamic_batch:
            program, dynamic = _export_dynamic(model, args, kwargs)
        else:
            program, dynamic = _export(model, args, kwargs, free=0), False
    if dynamic:
        args, kwargs = _of_two((args, kwargs))
    try:
        root = program.module(check_guards=False)
    except SyntaxError:  # the tracer writes names into Python code
        raise GraphError(_unspeakable(model)) from None
    for node in list(root.graph.nodes):
        checks = node.op == "call_module" or node.target is torch.ops.aten._assert_tensor_metadata.default
        if checks and not node.users:
            root.graph.erase_node(node)
    settle(root.graph)
    _prune_unused(root.graph)
    module = TracedModule(root, root.graph)
    adopt(module, model)
    own = set(module.state_dict()) - set(model.state_dict())
    for name in own:
        put_constant(module, name, get_tensor(module, name))
    return Graph(module, model, args, kwargs, dynamic, dynamic_length)


def _check_model(model: nn.Module) -> None:
    """Refuse what is no model, a wrapper of one, or one without values."""
    if not isinstance(model, nn.Module):
        raise GraphError(
            f"the model is a {type(model).__name__}, not a torch.nn.Module; lianzhi.model(name) makes one of the zoo, "
            f"lianzhi.load(folder) that of an artifact"
        )
    inside = _WRAPPERS.get(type(model).__name__)
    if inside is not None and isinstance(getattr(model, inside, None), nn.Module):
        raise GraphError(
            f"a {type(model).__name__} is a wrapper of a model; give the model itself: model.{inside}"
        )
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise GraphError(
                f"the model's '{name}' has no shape yet; call the model once on example inputs, which gives it one"
            )
        if tensor.is_meta:
            raise GraphError(
                f"the model's '{name}' has a shape and no values (device meta); give it its weights first, as with "
                f"model.to_empty(device='cpu') and model.load_state_dict(…)"
            )


def _export_dynamic(model: nn.Module, args: Any, kwargs: Any) -> tuple[Any, bool]:
    """Trace with a free batch; where the model fixes the batch, trace it as given."""
    try:
        return _export(model, *_of_two((args, kwargs)), free=1), True
    except GraphError as error:
        try:
            return _export(model, args, kwargs, free=0), False
        except GraphError:
            raise error from None


def _export_tokens(model: nn.Module, args: Any, kwargs: Any) -> Any:
    """Trace with free batch and length."""
    try:
        return _export(model, args, kwargs, free=2)
    except GraphError as error:
        raise GraphError(
            f"with a free batch and length of tokens {error}. A graph that was captured at one length has no other: "
            f"take the model itself, or keep target: pytorch"
        ) from error


def _two_long(inputs: Any) -> Any:
    """Every tensor with at least two tokens: a length of one would be taken for a constant."""

    def grown(value: Any) -> Any:
        short = isinstance(value, torch.Tensor) and value.dim() > 1 and value.shape[1] == 1
        return torch.cat([value, value], 1) if short else value

    return pytree.tree_map(grown, inputs)


def _of_two(inputs: Any) -> Any:
    """Every tensor with a batch of two: a batch of one would be taken for a constant."""
    if isinstance(inputs, torch.Tensor):
        if inputs.dim() == 0 or inputs.shape[0] == 2:
            return inputs
        return torch.cat([inputs[:1], inputs[:1]])
    if isinstance(inputs, dict):
        return {key: _of_two(value) for key, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return type(inputs)(_of_two(value) for value in inputs)
    return inputs


def _export(model: nn.Module, args: Any, kwargs: Any, *, free: int) -> Any:
    """Trace; the first `free` dimensions of every tensor take any size."""

    def mark(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return dict.fromkeys(range(min(free, value.dim())), torch.export.Dim.DYNAMIC) or None
        if isinstance(value, dict):
            return {key: mark(item) for key, item in value.items()}
        if isinstance(value, (tuple, list)):
            return type(value)(mark(item) for item in value)
        return None

    shapes = _by_name(model, mark(args), mark(kwargs)) if free else None
    # the tracer leaves its marks on the tensors when it fails, and would find them when it is asked again
    args, kwargs = pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, (args, kwargs))
    try:
        with quiet(), torch.no_grad(), _open_attention(), any_length():
            return torch.export.export(model, args, kwargs or None, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        raise GraphError(_explain(model, error)) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the tracer's own warnings and logs off the user's terminal; failures arrive as exceptions."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                yield
        finally:
            logging.disable(before)


@contextlib.contextmanager
def _open_attention() -> Iterator[None]:
    """Trace nn.MultiheadAttention as its products, not as one fused kernel for inference."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


_WAY = "give forward an argument of that name, or leave the input out"
_WAYS = {"token_type_ids": "leave it out (segments: false of a task of texts)"}


def _by_name(
    model: nn.Module, marks: tuple[Any, ...], keywords: dict[str, Any]
) -> dict[str, Any] | tuple[Any, ...]:
    """What is free of each argument, by its name; `*args` have one name for all.

    Raises:
        GraphError: an input is among `**kwargs`, of which the tracer leaves nothing free.
    """
    signature = inspect.signature(model.forward)
    try:
        found = dict(signature.bind(*marks, **keywords).arguments)
    except TypeError:  # these are not the arguments of the model, which the tracer is about to say
        return marks
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD and parameter.name in found:
            name = next(iter(found[parameter.name]))
            raise GraphError(
                f"{type(model).__name__} cannot be captured: its forward has no argument '{name}' of its own; {_WAYS.get(name, _WAY)}"
            )
    return found


def _explain(model: nn.Module, error: Exception) -> str:
    """What happened, and in which line of the model's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_internal(frame.filename)]
    where = f" at {own[-1].filename}:{own[-1].lineno} in {own[-1].name}: {own[-1].line}" if own else ""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    hint = "give example inputs of the shape and type that the model takes"
    kind = type(error).__name__
    if "in output, which is not a known type" in str(error):
        hint = (
            "let the model give tensors in tuples, lists and dicts alone; a decoder of the transformers library gives its "
            "cache of keys and values unless model.config.use_cache = False"
        )
    if "DataDependent" in kind or "data-dependent" in str(error) or "GuardOn" in kind:
        hint = (
            "the line decides by the values of a tensor; write it with torch.where, "
            "or decide by a shape or an attribute"
        )
    return f"{type(model).__name__} cannot be captured{where} ({kind}: {reason}); {hint}"


def _unspeakable(model: nn.Module) -> str:
    """Which submodule has a name that Python keeps for itself."""
    names = [name for name, _ in model.named_modules() if any(map(keyword.iskeyword, name.split(".")))]
    found = f"'{names[0]}'" if names else "a submodule"
    return (
        f"{type(model).__name__} cannot be captured: {found} has a name that is a word of Python's own; "
        f"rename the module"
    )


def _is_internal(filename: str) -> bool:
    if filename.startswith("<"):
        return True
    path = Path(filename).resolve()
    if _TORCH in path.parents:
        return True
    if _STANDARD in path.parents and not {"site-packages", "dist-packages"} & set(path.parts):
        return True
    return _OURS in path.parents and "models" not in path.relative_to(_OURS).parts[:1]


def _prune_unused(graph: fx.Graph) -> None:
    """Drop reads of tensors that no op uses."""
    for node in reversed(list(graph.nodes)):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """The real shape of a node's tensor value (symbols replaced by the traced sizes).

    Raises:
        GraphError: the data decide it.
    """
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None
    return tuple(_size(node, size) for size in value.shape)


def _size(owner: fx.Node, size: Any) -> int:
    if isinstance(size, int):
        return size
    if size.node.hint is None:
        raise GraphError(
            f"how large '{owner.name}' is depends on the data (rows that a mask picks, say): what is made of it can be neither "
            f"counted nor changed; write it with torch.where, or take rows by their place"
        )
    return int(size.node.hint)


def owner_of(node: fx.Node) -> str:
    """The path of the innermost module in whose forward the op was called."""
    stack = node.meta.get("nn_module_stack") or {}
    path = ""
    for value in stack.values():
        path = value[0] if isinstance(value, tuple) else ""
    return path.removeprefix("L['self'].").removeprefix("L['self']")
