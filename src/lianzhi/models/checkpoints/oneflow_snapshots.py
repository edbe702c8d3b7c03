"""OneFlow's folders without a pickle: one folder a variable, which bears the variable's name.

Three things have this form: what `flow.checkpoint.save` of the lazy graphs left (with the empty file `snapshot_done`;
a name with slashes is folders inside folders), `oneflow.save` until 0.4, and a compiled `nn.Graph` that was given to `oneflow.save`
(with `model.mlir`; there each name begins with the attribute of the graph that holds the module).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor

from lianzhi import files
from lianzhi.errors import ArtifactError
from lianzhi.models.checkpoints.oneflow_variables import DATA, META, read_variable

DONE, GRAPH = "snapshot_done", "model.mlir"
MAX_VARIABLES = 100_000
_HELPERS = (
    *("m", "v", "max_v", "momentum", "beta1_t", "beta2_t", "sum", "mean_square", "mean_gradient"),
    *("square_avgs", "acc_deltas", "accumulate", "z"),
)
OF_OPTIMIZER = "of the optimizer or the graph: not of the model"
_OF_GRAPHS = ("System-", "FreeEagerTensor-")  # counters of steps; constants that a graph's own code uses


def is_snapshot(folder: Path) -> bool:
    """Whether a folder looks like one: by its mark, or by a variable in it."""
    if (folder / DONE).is_file():
        return True
    return any(all(_files(path)) for path in _folders(folder))


def read_snapshot(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all variables but those of the optimizer, which are named beside them."""
    paths = dict(_variables(folder, deep=(folder / DONE).is_file()))
    left_out = optimizer_variables(paths)
    names = [name for name in paths if name not in left_out]
    inside = {name.partition(".")[0] for name in names}
    prefix = f"{inside.pop()}." if (folder / GRAPH).is_file() and len(inside) == 1 else ""
    read = {name.removeprefix(prefix): read_variable(paths[name], f"'{name}'") for name in names}
    return read, dict.fromkeys(sorted(left_out), OF_OPTIMIZER)


def optimizer_variables(names: Iterable[str]) -> set[str]:
    """The names of what an optimizer keeps: another variable's name and `-m`, `-v` and the like; and what graphs add.

    >>> sorted(optimizer_variables(["dense-weight", "dense-weight-m", "dense-weight-v", "layer-v", "System-Train-TrainStep"]))
    ['System-Train-TrainStep', 'dense-weight-m', 'dense-weight-v']
    """
    names = set(names)
    helpers = {f"{name}-{kind}" for name in names for kind in _HELPERS}
    return {name for name in names if name in helpers or name.startswith(_OF_GRAPHS)}


def _variables(folder: Path, deep: bool, above: str = "", depth: int = 0) -> Iterator[tuple[str, Path]]:
    """Names and folders. One of the two files is enough to be taken for a variable, so that the other is missed."""
    for count, path in enumerate(_folders(folder)):
        if count >= MAX_VARIABLES or depth > 20:
            raise ArtifactError(f"{folder}: too many folders for a checkpoint; give the folder of one")
        if path.is_symlink():
            raise ArtifactError(f"{path} is a link; put the folder itself there")
        name = above + path.name
        if not files.is_text(name):
            raise ArtifactError(f"{str(folder)!r}: {name!r:.80} is no name; names are UTF-8 text")
        if any(_files(path)):
            yield name, path
        elif deep and _folders(path):
            yield from _variables(path, deep, f"{name}/", depth + 1)
        else:
            raise ArtifactError(
                f"{path} is no variable of a checkpoint: '{DATA}' and '{META}' are not in it; "
                f"restore them, or remove the folder"
            )


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        raise files.explain(error, folder, "read") from error
    return [folder / name for name in found]


def _files(path: Path) -> tuple[bool, bool]:
    """Whether the data and the description of a variable are there."""
    return os.path.lexists(path / DATA), os.path.lexists(path / META)
