"""Checkpoints of OneFlow, read without OneFlow.

`oneflow.save(model.state_dict(), folder)` (format version 1, since 0.5) leaves a file `pickled_data`, a pickle of
``{"protocol_version": 1, "data": …}`` in which every tensor is the name of a folder beside it. The pickle is read as
data (`pickled.py`), the folders by `oneflow_variables.py`. A folder without the pickle is one of the older or other forms
(`oneflow_snapshots.py`). After 0.9 `oneflow.save` writes one file unless told otherwise: the same pickle, in which each tensor
holds its data as an array of NumPy.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from lianzhi import files
from lianzhi.errors import ArtifactError, listed
from lianzhi.files.disk import PathLike
from lianzhi.models.checkpoints.oneflow_snapshots import (
    OF_OPTIMIZER,
    is_snapshot,
    optimizer_variables,
    read_snapshot,
)
from lianzhi.models.checkpoints.oneflow_variables import read_variable
from lianzhi.models.checkpoints.pickled import Reference, read_pickle
from lianzhi.models.checkpoints.state_dicts import find_state_dict

PICKLE = "pickled_data"
VERSION = 1
MAX_PICKLE = 1 << 26
MAX_FILE = 1 << 36
_HEAD = 64  # bytes, in which the first key of the pickle stands
_OLD_PYTORCH = bytes.fromhex(
    "6cfc9c46f9206aa85019"
)  # the number that torch.save's files began with before 1.6


def read_oneflow(folder: PathLike) -> dict[str, Tensor]:
    """Read a OneFlow checkpoint: its tensors by name, on the CPU, without OneFlow and without running anything.

    ```python
    state = read_oneflow("resnet50_oneflow/")          # what oneflow.save(model.state_dict(), …) left
    lz.model("resnet50").load_state_dict(state)
    ```

    `folder` is a checkpoint's, or the one file that versions after 0.9 write.

    A dict with a state dict under ``state_dict`` or ``model`` is opened (all beside it is ignored). The state of an
    `nn.Graph`, a saved `nn.Graph` and the snapshots of lazy graphs give their model's variables; what an optimizer
    keeps (`weight-m`, `weight-v`, …) and counters of steps are left out. A tensor that stands under two names is one tensor here
    as well. bfloat16 is bfloat16, which OneFlow 0.9 itself writes but does not load.

    Raises:
        ArtifactError: no checkpoint; a pickle that names or does anything else than hold tensors; a value that is no
            tensor; a path that leaves the folder, or a link; data of another length than shape and type say.
    """
    return read_model(folder)[0]


def read_model(place: PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The same, and what was left out: its name, and what it is."""
    root = files.expanded(place)
    if _is_pickle(root):
        return _read_pickled(root, None)
    if not root.is_dir():
        what = "no file that oneflow.save wrote" if root.exists() else "not there"
        raise ArtifactError(f"{root} is {what}; a OneFlow checkpoint is mostly a folder: check the path")
    if os.path.lexists(root / PICKLE):
        return _read_pickled(files.member(root, PICKLE), root)
    if is_snapshot(root):
        return read_snapshot(root)
    inside = sorted(path.parent.name for path in root.glob(f"*/{PICKLE}"))
    raise ArtifactError(
        f"{root} is no OneFlow checkpoint: it has neither '{PICKLE}' nor folders with 'meta' and 'out'; "
        + (f"give the folder of one: {listed(inside)} in it" if inside else "check the path")
    )


def is_oneflow(path: PathLike) -> bool:
    """Whether at a path lies a checkpoint of OneFlow: a folder by the names in it, a file by its first bytes."""
    place = files.expanded(path)
    if not place.is_dir():
        return _is_pickle(place)
    return os.path.lexists(place / PICKLE) or is_snapshot(place)


def _is_pickle(path: Path) -> bool:
    """Whether a file begins as the pickle of `oneflow.save` does."""
    if not path.is_file():
        return False
    try:
        with open(path, "rb", opener=files.open_regular) as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise files.explain(error, path, "read") from error
    return head.startswith(b"\x80") and b"protocol_version" in head and _OLD_PYTORCH not in head


def _read_pickled(path: Path, root: Path | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a pickle whose tensors lie in the folder `root`; without one it is the whole checkpoint."""
    try:
        loaded = read_pickle(files.read_bytes(path, MAX_PICKLE if root else MAX_FILE), str(path))
    except MemoryError:
        raise ArtifactError(f"{path} is larger than this machine has memory for") from None
    if not isinstance(loaded, dict) or not {"protocol_version", "data"} <= loaded.keys():
        raise ArtifactError(f"{path} is a pickle, but not one that oneflow.save wrote")
    if loaded["protocol_version"] != VERSION:
        raise ArtifactError(
            f"{path} has the format version {loaded['protocol_version']!r:.20}; version {VERSION} is read here"
        )
    data, beside = _without_graph(loaded["data"])
    references, left_out = find_state_dict(path, data, Reference)
    read: dict[str, Tensor] = {}
    tensors = {}
    for name, reference in references.items():
        if reference.tensor is not None:
            tensors[name] = reference.tensor
            continue
        place = _place(path, name, reference)
        if root is None:
            raise ArtifactError(f"{path}: the data of '{name:.80}' lie beside it; give its folder")
        if place not in read:
            read[place] = read_variable(files.member(root, place), f"'{name}'")
        tensors[name] = read[place]
    return tensors, left_out | dict.fromkeys(sorted(beside), OF_OPTIMIZER)


def _place(path: Path, name: str, reference: Reference) -> str:
    """The name of a tensor's folder."""
    place = reference.path
    if place is None or not re.fullmatch(r"\w{1,200}", place):
        raise ArtifactError(
            f"{path}: the data of '{name:.80}' are said to lie at {place!r:.100}, which is no folder of this "
            f"checkpoint (like 'tensor_26'); it is damaged, or made to read other files: nothing was read"
        )
    return place


def _without_graph(data: Any) -> tuple[Any, set[str]]:
    """The model of an `nn.Graph`'s state, and what is beside it: the one dict in it, where all beside it is its optimizer's."""
    if not isinstance(data, dict):
        return data, set()
    inside = [name for name, value in data.items() if isinstance(value, dict)]
    if len(inside) != 1 or not isinstance(inside[0], str):
        return data, set()
    model = data[inside[0]]
    names = {f"{inside[0]}.{key}" for key in model}
    rest = {name for name in data if name != inside[0]}
    if not rest or not rest <= optimizer_variables(names | {str(name) for name in rest}):
        return data, set()
    return model, rest
