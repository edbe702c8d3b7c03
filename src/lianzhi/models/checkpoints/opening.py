"""A checkpoint of any kind: read, freed of what is no weight, and a BERT's tensors by transformers' names."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from lianzhi import files
from lianzhi.errors import ArtifactError, listed
from lianzhi.files.disk import PathLike
from lianzhi.models.checkpoints import kinds, oneflow, pytorch
from lianzhi.models.checkpoints.bert_names import to_huggingface
from lianzhi.models.checkpoints.slots import no_weights
from lianzhi.models.checkpoints.tensorflow import read_variables


@dataclass(frozen=True)
class Checkpoint:
    """What was read: `sources` has the name in the checkpoint for each that got another, `left_out` the reason by name."""

    kind: str
    tensors: dict[str, Tensor]
    sources: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def open_checkpoint(place: PathLike, kind: str | None = None, *, heads: int | None = None) -> Checkpoint:
    """Read a checkpoint of OneFlow, PyTorch or TensorFlow, on the CPU, and with nothing in it run.

    ```python
    open_checkpoint("uncased_L-12_H-768_A-12/bert_model.ckpt").tensors["bert.pooler.dense.bias"]
    ```

    Without `kind` it is found from what lies there. `heads` is how many attention heads a BERT has; it is needed where
    query, key and value are one weight (LiBai's).

    Raises:
        ArtifactError: nothing lies there, it is damaged or hostile, of another kind, or holds no weight.
        RecipeError: there is no such kind.
    """
    path = files.expanded(place)
    found = kinds.check_kind(kind) if kind is not None else kinds.kind_of(path)
    tensors, left_out = _read(path, found)
    if not tensors:
        raise ArtifactError(f"{os.fspath(place)}: holds no weights{_but(left_out)}; give another checkpoint")
    try:
        bert = to_huggingface(tensors, heads=heads)
    except ArtifactError as error:
        raise ArtifactError(f"{os.fspath(place)}: {error}") from None
    if bert is None:
        return Checkpoint(found, tensors, left_out=left_out)
    return Checkpoint(found, bert.tensors, bert.sources, {**left_out, **bert.left_out}, bert.notes)


def _read(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    if kind == kinds.ONEFLOW:
        return oneflow.read_model(path)
    if kind == kinds.PYTORCH:
        return pytorch.read_model(kinds.file_of_pytorch(path) or path)
    tensors, left_out = read_variables(path)
    others = no_weights([*tensors, *left_out])
    kept = {name: tensor for name, tensor in tensors.items() if name not in others}
    return kept, left_out | others


def _but(left_out: dict[str, str]) -> str:
    return f", only {listed(left_out)}" if left_out else ""
