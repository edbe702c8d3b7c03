"""`load`: a module back from its folder, without the code that it was made with.

Every check comes before memory is allocated: the folder, the format, the digest and the header of the weights,
the ops and their arguments, and a run on tensors without memory. Only then the weights are read.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi import files
from lianzhi.artifact import skeleton
from lianzhi.artifact.dry_run import dry_run, make_inputs
from lianzhi.artifact.layout import (
    LABELS,
    PLACED,
    check_architecture,
    check_folder,
    is_plain,
    read_architecture,
)
from lianzhi.errors import ArtifactError, RecipeError, TargetError
from lianzhi.files import TensorInfo
from lianzhi.graph.deserialize import FROZEN, PARAMETER, register_tensors
from lianzhi.graph.serialize import from_json

PathLike = str | os.PathLike[str]
MOST_NODES = 50_000  # the largest models in use have some 10,000
MOST_LABELS = 1 << 23  # bytes


def load(path: PathLike) -> nn.Module:
    """Load the model of an artifact folder, in eval mode, on the CPU.

    >>> import tempfile
    >>> from lianzhi import artifact
    >>> folder = tempfile.mkdtemp() + "/small"
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    >>> _ = artifact.save(model, folder, example_inputs=torch.zeros(1, 4))
    >>> artifact.load(folder)(torch.ones(2, 4)).shape
    torch.Size([2, 3])

    A model of the zoo is that model again; any other is a `lianzhi.graph.TracedModule` over the same
    parameters, which trains as well. Raises `ArtifactError` for a folder that is damaged, hostile, or of a
    newer format; nothing in it is unpickled or evaluated.
    """
    folder = Path(path)
    check_folder(folder)
    architecture = read_architecture(folder)
    with _explained(folder):
        weights = _checked_weights(folder, architecture["weights"])
        table = files.tensor_table(weights)
        ties = _checked_ties(architecture["ties"], table)
        return _built(architecture, table, ties, lambda: files.read_tensors(weights))


def stored(
    folder: Path, held: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any], set[str]]:
    """An artifact's tensors, also by their other names; its architecture as `rebuild` takes it; the names of its parameters.

    Those that are in `held` already are not read into memory again.
    """
    check_folder(folder)
    architecture = read_architecture(folder)
    with _explained(folder):
        weights = _checked_weights(folder, architecture["weights"])
        ties = _checked_ties(architecture["ties"], files.tensor_table(weights))
        tensors: dict[str, Tensor] = files.read_tensors(weights, held=held)
    tensors.update({alias: tensors[name] for alias, name in ties.items()})
    data = architecture[architecture["kind"]]
    kinds = data.get("tensors") if isinstance(data, dict) else None
    if not isinstance(kinds, dict) or kinds.keys() != tensors.keys():
        raise ArtifactError(f"{folder} does not say which of its tensors are parameters; restore it")
    parameters = {name for name, kind in kinds.items() if kind in (PARAMETER, FROZEN)}
    return tensors, {key: value for key, value in architecture.items() if key not in PLACED}, parameters


def rebuild(
    architecture: Any,
    source: PathLike,
    table: dict[str, TensorInfo],
    ties: dict[str, str],
    read: Callable[[], dict[str, Tensor]],
) -> nn.Module:
    """The module of an architecture that lies in another file, `source`; its tensors are read when all else fits.

    `table` has the types and shapes of the tensors that `read` gives, and `ties` their other names.
    """
    with _explained(Path(source)):
        return _built(check_architecture(architecture, source, without=PLACED), table, ties, read)


@contextlib.contextmanager
def _explained(source: Path) -> Iterator[None]:
    """Whatever goes wrong is an `ArtifactError` that names the folder or file."""
    try:
        yield
    except ArtifactError as error:
        shown = str(error)
        raise (error if shown.startswith(str(source)) else ArtifactError(f"{source}: {shown}")) from None
    except RecipeError as error:
        raise ArtifactError(f"{source}: {error}; it may need a newer Lianzhi, or a plug-in") from None
    except TargetError as error:
        raise ArtifactError(f"{source}: {error}") from None
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise ArtifactError(
            f"{source} is damaged or not made by Lianzhi ({type(error).__name__}: {reason})"
        ) from error


def _built(
    architecture: dict[str, Any],
    table: dict[str, TensorInfo],
    ties: dict[str, str],
    read: Callable[[], dict[str, Tensor]],
) -> nn.Module:
    data = architecture[architecture["kind"]]
    nodes = data.get("nodes") if isinstance(data, dict) else None
    if isinstance(nodes, list) and len(nodes) > MOST_NODES:
        raise ArtifactError(f"the graph has {len(nodes):,} nodes; at most {MOST_NODES:,} are read")
    make = from_json if architecture["kind"] == "graph" else skeleton.build
    module, outputs = dry_run(
        functools.partial(make, data),
        table,
        ties,
        architecture["inputs"],
        trusted=architecture["kind"] == "zoo",
    )
    if outputs != architecture["outputs"]:
        raise ArtifactError(
            "the model's outputs have other shapes or types than were saved; restore the folder"
        )
    tensors = read()
    tensors.update({alias: tensors[name] for alias, name in ties.items()})
    register_tensors(module, data["tensors"], tensors)
    return module.eval()


def _checked_weights(folder: Path, entry: Any) -> Path:
    """The weights file, if its size and digest are those that were saved."""
    if not isinstance(entry, dict) or entry.keys() != {"file", "bytes", "sha256"}:
        raise ArtifactError("the weights are not described by file, bytes and sha256")
    path = files.member(folder, entry["file"])
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; restore it")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise ArtifactError(
            f"{path} is damaged: it has {size:,} bytes, not {entry['bytes']!r:.30}; restore it"
        )
    if digest(path) != entry["sha256"]:
        raise ArtifactError(f"{path} is damaged: its SHA-256 is not the one that was saved; restore it")
    return path


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def _checked_ties(ties: Any, table: dict[str, Any]) -> dict[str, str]:
    if not isinstance(ties, dict):
        raise ArtifactError("the ties are not a table")
    for alias, name in ties.items():
        if alias in table or not isinstance(name, str) or name not in table:
            raise ArtifactError(f"the tie of {alias!r:.80} to {name!r:.80} does not fit the weights")
    return ties


def labels_of(path: PathLike) -> list[str]:
    """The names of an artifact's classes; none if it has no such file.

    Raises:
        ArtifactError: a name holds control characters, which could change what a terminal shows.
    """
    file = files.member(path, LABELS)
    names = files.read_text(file, MOST_LABELS).splitlines() if file.exists() else []
    for line, name in enumerate(names, 1):
        if not is_plain(name):
            raise ArtifactError(
                f"{file}: line {line} holds control characters, which could change what a terminal shows; "
                f"restore it"
            )
    return names


def example_inputs(path: PathLike) -> Any:
    """Inputs of the shapes that the model takes, of a batch of one and the length of the saved example.

    Floats are random (always the same), integers zero; an ``attention_mask`` hides nothing.
    """
    return inputs_of(read_architecture(Path(path)))


def inputs_of(architecture: dict[str, Any]) -> Any:
    """Inputs that an architecture describes, as `example_inputs` gives them."""
    generator = torch.Generator().manual_seed(0)

    def make(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if dtype.is_floating_point:
            return torch.randn(shape, generator=generator).to(dtype)
        return torch.ones(shape, dtype=dtype) if dtype is torch.bool else torch.zeros(shape, dtype=dtype)

    made = make_inputs(architecture["inputs"], make)
    if isinstance(made, dict) and isinstance(made.get("attention_mask"), Tensor):
        made["attention_mask"].fill_(1)
    return made
