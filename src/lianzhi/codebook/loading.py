"""`load`: a module back from an artifact folder or from a packed file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from lianzhi import artifact
from lianzhi.codebook.container import Reader
from lianzhi.errors import ArtifactError

PathLike = str | os.PathLike[str]


def load(path: PathLike) -> nn.Module:
    """Load a model from an artifact folder or a `.lzc` file, in eval mode, on the CPU.

    >>> import tempfile, torch
    >>> from lianzhi import codebook
    >>> file = tempfile.mkdtemp() + "/model.lzc"
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    >>> _ = codebook.pack(model, file, example_inputs=torch.zeros(1, 4))
    >>> load(file)(torch.ones(2, 4)).shape
    torch.Size([2, 3])

    A model of the zoo is that model again; any other is a `lianzhi.graph.TracedModule` over the same parameters, which
    trains as well. Nothing is unpickled or evaluated. Raises `ArtifactError` for what is damaged, hostile, of a newer
    format, or holds tensors only.
    """
    if not Path(path).is_file():
        return artifact.load(path)
    with Reader(path) as reader:
        architecture = _architecture(reader)
        table = {name: entry.info for name, entry in reader.entries.items() if entry.same is None}
        ties = {name: entry.same for name, entry in reader.entries.items() if entry.same is not None}
        return artifact.rebuild(
            architecture, path, table, ties, lambda: {name: reader.read(name) for name in table}
        )


def example_inputs(path: PathLike) -> Any:
    """Inputs of the shapes that the model of an artifact folder or a `.lzc` file takes (`artifact.example_inputs`)."""
    if not Path(path).is_file():
        return artifact.example_inputs(path)
    with Reader(path) as reader:
        return artifact.inputs_of(artifact.check_architecture(_architecture(reader), path, artifact.PLACED))


def _architecture(reader: Reader) -> Any:
    architecture = reader.architecture()
    if architecture is None:
        raise ArtifactError(
            f"{reader.path} holds tensors only, and no architecture. Read them with lianzhi.codebook.unpack, or pack "
            f"the artifact folder, or the module with its example_inputs"
        )
    return architecture
