"""`save`: a module into a folder, proved by loading it before the folder gets its name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lianzhi import files
from lianzhi._version import __version__
from lianzhi.artifact import skeleton
from lianzhi.artifact.dry_run import call, dry_run, input_tree, no_memory
from lianzhi.artifact.layout import (
    ARCHITECTURE,
    FORMAT,
    LABELS,
    MEMBERS,
    PREPROCESS,
    TOKENIZER,
    WEIGHTS,
    checked_labels,
    own_digest,
)
from lianzhi.artifact.reading import digest, load
from lianzhi.errors import ArtifactError, GraphError
from lianzhi.graph import Graph, TracedModule, are_tokens, capture, get_tensor, in_eval, moved, on_cpu
from lianzhi.graph.deserialize import TEMPORARY
from lianzhi.graph.serialize import from_json, tensor_kinds, to_json

PathLike = str | os.PathLike[str]
_TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 5e-2}


def save(
    model: nn.Module,
    path: PathLike,
    *,
    example_inputs: Any,
    preprocess: Any = None,
    labels: Sequence[str] | None = None,
    tokenizer: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Save a model as a folder that `lianzhi.load` reads without the model's code. The model stays as it is.

    >>> import tempfile
    >>> folder = save(nn.Linear(4, 3), tempfile.mkdtemp() + "/m", example_inputs=torch.zeros(1, 4), labels=["a", "b", "c"])
    >>> sorted(os.listdir(folder))
    ['architecture.json', 'labels.txt', 'model.safetensors']

    `preprocess` is a dict, or what has `to_dict`. `tokenizer` are the files of a text model's tokenizer by name. `extra` are more members by file name: text, bytes, a
    `Path` to copy, or a value to be written as JSON. A model of the zoo, pruned or not, is saved by name and
    changes; any other, and one that those do not rebuild bit for bit, as its captured graph. The folder
    appears whole or not at all; one that is not empty is refused unless `overwrite`, and then other people's
    files in it stay. Raises `ArtifactError` if it cannot be written, `GraphError` if the model cannot be captured.
    """
    model, example_inputs = _on_cpu(model, example_inputs)
    with files.whole_folder(path, overwrite=overwrite, owned=MEMBERS) as folder:
        with in_eval(model):
            expected = _outputs(model, example_inputs)
            reason = _save_zoo(model, folder, example_inputs, expected)
            if reason is not None:
                _save_graph(model, folder, example_inputs, expected, reason)
        if preprocess is not None:
            values = preprocess if isinstance(preprocess, dict) else preprocess.to_dict()
            files.write_json(folder / PREPROCESS, values)
        if labels is not None:
            files.write_text(folder / LABELS, "".join(f"{label}\n" for label in checked_labels(labels)))
        if tokenizer:
            inside = files.make_folder(folder / TOKENIZER)
            for name, text in tokenizer.items():
                files.write_text(files.member(inside, name), text)
        for name, value in (extra or {}).items():
            _write_extra(files.member(folder, name), value)
    return Path(path)


def _save_zoo(model: nn.Module, folder: Path, example_inputs: Any, expected: Any) -> str | None:
    """Save by name and changes; return why that cannot be, if so."""
    described = skeleton.describe(model)
    if described is None:
        return "it is not a model of the zoo"
    kinds = tensor_kinds(model)
    tensors, ties = _tensors(model, kinds)
    inputs = input_tree(example_inputs, lambda _: 1)
    try:
        with no_memory():
            fresh = skeleton.skeleton(described["name"], described["config"])
        data = {**described, **skeleton.saved(fresh, model), "tensors": kinds}
        _write(folder, tensors, ties, inputs, {"kind": "zoo", "zoo": data}, skeleton.build)
        if _difference(expected, _outputs_of_saved(folder, example_inputs)) == 0:
            return None
        return "rebuilt from name and changes, the outputs are not the same bit for bit"
    except Exception as error:
        if isinstance(error.__cause__, OSError):
            raise
        return f"name and changes do not rebuild it: {(str(error).splitlines() or [''])[0]}"


def _save_graph(model: nn.Module, folder: Path, example_inputs: Any, expected: Any, reason: str) -> None:
    """Save the captured graph, and prove that it computes the same."""
    data, tensors, ties, inputs = described(model, example_inputs)
    entry = {"kind": "graph", "graph": data, "reason": reason}
    _write(folder, tensors, ties, inputs, entry, from_json)
    difference = _difference(expected, _outputs_of_saved(folder, example_inputs))
    if difference:
        _write(folder, tensors, ties, inputs, entry, from_json, difference)


def described(
    model: nn.Module, example_inputs: Any
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, str], Any]:
    """What a captured graph is saved as: the graph, its tensors, the other names that they have, its inputs."""
    graph = _captured(model, example_inputs)
    data = to_json(graph.module)
    own = tensor_kinds(model)
    data["tensors"] = {name: own.get(name, TEMPORARY) for name in data["tensors"]}
    tensors, ties = _tensors(graph.module, data["tensors"])
    free = _free_dimensions(graph, example_inputs)
    return data, tensors, ties, input_tree(example_inputs, lambda value: free[id(value)])


def _captured(model: nn.Module, example_inputs: Any) -> Graph:
    """The model's graph, with as many free dimensions as it has."""
    attempts: list[dict[str, bool]] = [{}]
    if isinstance(model, TracedModule):
        attempts.append({"dynamic_batch": False})
        if are_tokens(example_inputs):
            attempts.insert(0, {"dynamic_length": True})
    for options in attempts[:-1]:
        with contextlib.suppress(GraphError):
            return capture(model, example_inputs, **options)
    return capture(model, example_inputs, **attempts[-1])


def _free_dimensions(graph: Graph, example_inputs: Any) -> dict[int, int]:
    """How many leading dimensions of each example input the captured graph leaves free, by the tensor's identity."""
    values = pytree.tree_leaves(example_inputs)
    nodes = [node for node in graph.nodes if node.op == "placeholder"]
    free = {}
    for value, node in zip(values, nodes, strict=True):
        traced = node.meta.get("val")
        sizes = traced.shape if isinstance(traced, Tensor) else ()
        free[id(value)] = next((i for i, size in enumerate(sizes) if isinstance(size, int)), len(sizes))
    return free


def _write(
    folder: Path,
    tensors: dict[str, Tensor],
    ties: dict[str, str],
    inputs: Any,
    entry: dict[str, Any],
    make: Any,
    difference: float = 0.0,
) -> None:
    """Write weights and architecture."""
    weights = files.write_tensors(folder / WEIGHTS, tensors)
    table = files.tensor_table(weights)
    data = entry[entry["kind"]]
    _, outputs = dry_run(
        lambda values: make(data, values), table, ties, inputs, trusted=entry["kind"] == "zoo"
    )
    architecture = {
        "format": FORMAT,
        "lianzhi": __version__,
        "weights": {"file": WEIGHTS, "bytes": weights.stat().st_size, "sha256": digest(weights)},
        "ties": ties,
        "inputs": inputs,
        "outputs": outputs,
        "difference": difference,
        **entry,
    }
    files.write_json(folder / ARCHITECTURE, {**architecture, "digest": own_digest(architecture)})


def _tensors(module: nn.Module, kinds: dict[str, str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor once, and which other names it has."""
    first: dict[int, str] = {}
    tensors, ties = {}, {}
    for name in kinds:
        tensor = get_tensor(module, name)
        if id(tensor) in first:
            ties[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            tensors[name] = tensor
    return tensors, ties


def _on_cpu(model: nn.Module, example_inputs: Any) -> tuple[nn.Module, Any]:
    """The model and its inputs on the CPU; a model that is elsewhere is copied."""
    return on_cpu(model), moved(example_inputs, torch.device("cpu"))


def _outputs_of_saved(folder: Path, example_inputs: Any) -> list[Any]:
    """What the model in the folder returns."""
    loaded = load(folder)
    found = _outputs(loaded, example_inputs)
    loaded.to("meta")  # its memory now, and not when the cycles of a graph are collected
    return found


def _outputs(model: nn.Module, example_inputs: Any) -> list[Any]:
    """What the model returns, from the same random numbers each time."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return pytree.tree_leaves(call(model, example_inputs))
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0][:200]
            raise GraphError(
                f"{type(model).__name__} does not run on example_inputs ({type(error).__name__}: {reason}); "
                f"give a tensor, a tuple of tensors or a dict of keyword tensors that it takes"
            ) from error


def _difference(expected: list[Any], found: list[Any]) -> float:
    """0.0 if all outputs are the same bit for bit, else the largest difference, if it is mere rounding."""
    largest = 0.0
    if len(expected) != len(found):
        raise ArtifactError(f"the saved model returns {len(found)} values, and the model {len(expected)}")
    for one, other in zip(expected, found, strict=True):
        if not isinstance(one, Tensor):
            continue
        if one.shape != other.shape or one.dtype != other.dtype:
            raise ArtifactError(
                f"the saved model returns {other.dtype} of shape {tuple(other.shape)}, "
                f"and the model {one.dtype} of shape {tuple(one.shape)}"
            )
        if torch.equal(_bits(one), _bits(other)):
            continue
        gap = float((one.double() - other.double()).abs().nan_to_num(nan=float("inf")).max())
        if gap > _TOLERANCE.get(one.dtype, 1e-4) * max(1.0, float(one.double().abs().max())):
            raise ArtifactError(
                f"the captured graph computes something else than the model (a difference of {gap:.3g}); "
                f"it may read random numbers or a state that is not a parameter or buffer"
            )
        largest = max(largest, gap)
    return largest


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _write_extra(path: Path, value: Any) -> None:
    if path.name in (ARCHITECTURE, WEIGHTS, PREPROCESS, LABELS, TOKENIZER):
        raise ArtifactError(f"'{path.name}' is written by save itself; give the extra file another name")
    if isinstance(value, str):
        files.write_text(path, value)
    elif isinstance(value, (bytes, bytearray)):
        files.write_bytes(path, bytes(value))
    elif isinstance(value, os.PathLike):
        files.write_bytes(path, files.read_bytes(value))
    else:
        files.write_json(path, value)
