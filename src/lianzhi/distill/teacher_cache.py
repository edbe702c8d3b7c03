"""A teacher's logits of every sample, computed once: by sample id, in half precision, all of them or the largest k.

The file is known by a fingerprint of the teacher's weights, of the data with its preprocessing, and of what is
kept; one that was made by another teacher or for other data is refused, and so is one whose logits of a few samples
the teacher does not give: the same weights with another activation are another teacher. It goes only with inputs that are the
same in every epoch: an augmented image is another one each time.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi import files
from lianzhi.distill.methods.teacher import placed, teacher_logits
from lianzhi.errors import ArtifactError, DataError, RecipeError
from lianzhi.graph import fingerprint
from lianzhi.measure.shown import shown
from lianzhi.processes import by_leader, gathered, process
from lianzhi.tasks import Task, cache
from lianzhi.train.validation import move

FORMAT = 2  # 2: with a digest of the numbers
TEACHERS = "teachers"  # in the cache folder
OWN = "teacher.safetensors"  # in a folder of one teacher
CHECKED = 8  # samples of which the teacher is asked again when a file is read
SAME = 0.01  # how far apart logits of half precision may be, of one more than the largest of the sample


def folder() -> Path:
    """Where logits are kept unless a recipe says where."""
    return cache.folder() / TEACHERS


def require_usable(folder: Path, *, named: bool, mark: Mapping[str, object]) -> None:
    """Refuse a folder that logits cannot be kept in, before anything is computed. Writes nothing.

    `mark` is what is known by now of the teacher and of what is kept.

    Raises:
        ArtifactError: it is a file or cannot be written to, or what it holds already is damaged, or of another teacher.
    """
    files.require_writable(folder)
    file = folder / OWN
    if not named and file.exists():
        _require_same(file, _said(file, files.read_tensors(file)), {"format": FORMAT, **mark})


@dataclass(frozen=True)
class Kept:
    """Logits of samples 0 … N - 1: (N, classes), or the largest (N, k) with their classes and the mass of the others."""

    values: Tensor
    indices: Tensor | None
    rest: Tensor | None
    classes: int

    def logits(self, ids: Tensor) -> Tensor:
        """Logits (samples, classes) in float32; classes that were not kept share what is left of the probability.

        >>> whole = torch.tensor([[4.0, 1.0, 1.0, -2.0], [0.0, 0.0, 0.0, 0.0]])
        >>> kept_of(whole, top_k=2).logits(torch.tensor([1])).tolist()
        [[0.0, 0.0, 0.0, 0.0]]
        """
        values = self.values[ids].float()
        if self.indices is None or self.rest is None:
            return values
        each = self.rest[ids].float() - math.log(self.classes - values.shape[1])
        full = each[:, None].expand(len(ids), self.classes).clone()
        return full.scatter_(1, self.indices[ids].long(), values)


def kept_of(logits: Tensor, *, top_k: int | None = None) -> Kept:
    """What is kept of logits (N, classes), in float16.

    Raises:
        DataError: a logit is not finite, or too large for float16.
    """
    if not bool(logits.half().isfinite().all()):
        raise DataError("the teacher's logits are not finite, or above 65,504; do without the cache")
    classes = logits.shape[1]
    if top_k is None or top_k >= classes:
        return Kept(logits.half(), None, None, classes)
    values, indices = logits.float().topk(top_k, dim=1)
    others = logits.float().scatter(1, indices, -math.inf).logsumexp(1)
    return Kept(values.half(), indices.to(torch.int32), others, classes)


def kept(
    teacher: nn.Module,
    task: Task,
    folder: Path,
    *,
    named: bool = True,
    split: str = "train",
    augment: bool = False,
    batch_size: int = 128,
    top_k: int | None = None,
    device: torch.device | None = None,
    progress: bool = True,
) -> Kept:
    """The logits of a split's samples: from the folder, else computed and written there.

    `named`: the folder holds several, by fingerprint; else it is of this one teacher and data.

    Raises:
        RecipeError: the inputs are other ones in each epoch.
        ArtifactError: the file is damaged, or of another teacher or other data.
    """
    if not task.fixed(split, augment=augment):
        raise RecipeError(
            "the cache keeps one output a sample, and the inputs are other ones in each epoch; set augment: false, "
            "or cache: false"
        )
    mark = {
        "format": FORMAT,
        "teacher": fingerprint(teacher),
        "task": task.fingerprint(),
        "split": split,
        "top_k": top_k,
    }
    name = hashlib.blake2b(json.dumps(mark, sort_keys=True).encode(), digest_size=12).hexdigest()
    file = folder / (f"teacher-{name}.safetensors" if named else OWN)
    found = by_leader(lambda: _read(file, mark, task.size(split)))
    if found is None:
        logits = _computed(teacher, task, split, batch_size, device or torch.device("cpu"), progress)
        made = kept_of(logits, top_k=top_k)
        by_leader(lambda: _write(file, mark, made))
        return made
    by_leader(lambda: _require_answers(file, found, teacher, task, split, device or torch.device("cpu")))
    return found


def _require_answers(
    file: Path, found: Kept, teacher: nn.Module, task: Task, split: str, device: torch.device
) -> None:
    """Ask the teacher for a few samples again: models of the same tensors may compute otherwise."""
    batch = next(iter(task.batches(split, CHECKED, epoch=0)))
    now = teacher_logits(placed(teacher, device), move(batch.inputs, device)).float().cpu()
    then = found.values[batch.ids].float()
    if found.indices is not None:
        now = now.gather(1, found.indices[batch.ids].long())
    apart = (now - then).abs().amax(1) / (1 + then.abs().amax(1))
    if float(apart.max()) > SAME:
        worst = int(apart.argmax())
        raise ArtifactError(
            f"{file}: of another teacher, of the same weights: sample {int(batch.ids[worst])} has logits that are "
            f"{float((now - then)[worst].abs().max()):.2g} apart; remove it, and it is made again"
        )


def _computed(
    teacher: nn.Module, task: Task, split: str, batch_size: int, device: torch.device, progress: bool
) -> Tensor:
    """Logits of all samples in the order of their ids, each process its share of every batch."""
    rank, world = process()
    runner = placed(teacher, device)
    total = task.steps(split, batch_size)
    ids: list[Tensor] = []
    rows: list[Tensor] = []
    batches = task.batches(
        split, batch_size, epoch=0, rank=rank, world=world
    )  # texts of like length together
    for batch in shown(batches, total, progress and rank == 0, "teacher"):
        if len(batch.ids):
            found = teacher_logits(runner, move(batch.inputs, device))
            if found.ndim != 2:
                raise DataError(
                    f"the teacher's logits are {list(found.shape)}, and the cache keeps (samples, classes); do without it"
                )
            ids.append(batch.ids)
            rows.append(found.float().cpu())
    parts = gathered((torch.cat(ids), torch.cat(rows)) if ids else None)
    parts = [part for part in parts if part is not None]
    order = torch.cat([part[0] for part in parts])
    values = torch.cat([part[1] for part in parts])
    whole = torch.empty_like(values)
    whole[order] = values
    return whole


def _write(file: Path, mark: dict[str, object], found: Kept) -> None:
    files.make_folder(file.parent)
    said = {**mark, "classes": found.classes, "digest": _digest(found)}
    data = torch.frombuffer(bytearray(json.dumps(said).encode()), dtype=torch.uint8)
    parts = {"values": found.values, "indices": found.indices, "rest": found.rest, "mark": data}
    files.write_tensors(file, {name: part for name, part in parts.items() if part is not None})


def _read(file: Path, mark: dict[str, object], size: int) -> Kept | None:
    """What the file holds; None where there is none."""
    if not file.is_file():
        return None
    tensors = files.read_tensors(file)
    said = _said(file, tensors)
    _require_same(file, said, mark)
    try:
        found = Kept(tensors["values"], tensors.get("indices"), tensors.get("rest"), said["classes"])
        _require_whole(found, size, said["digest"])
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise _damaged(file, error) from None
    return found


def _said(file: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the file says of itself."""
    try:
        said = json.loads(bytes(tensors["mark"].tolist()))
        return {**said}
    except (KeyError, ValueError, TypeError) as error:
        raise _damaged(file, error) from None


def _damaged(file: Path, error: Exception) -> ArtifactError:
    return ArtifactError(f"{file}: damaged ({error}); remove it, and it is made again")


def _require_same(file: Path, said: Mapping[str, Any], mark: Mapping[str, object]) -> None:
    different = [key for key, value in mark.items() if said.get(key) != value]
    if different:
        raise ArtifactError(
            f"{file}: made by or for another {' and '.join(different)}; give another folder, or remove it"
        )


def _digest(found: Kept) -> str:
    """Changes with any of the numbers."""
    hashed = hashlib.blake2b(digest_size=16)
    for part in (found.values, found.indices, found.rest):
        if part is not None:
            hashed.update(part.contiguous().numpy().data)
    return hashed.hexdigest()


def _require_whole(found: Kept, size: int, digest: str) -> None:
    wanted = found.values.shape
    parts = [part for part in (found.indices, found.rest) if part is not None]
    if len(wanted) != 2 or wanted[0] != size or any(len(part) != size for part in parts):
        raise ValueError(f"it holds {list(wanted)} logits for {size} samples")
    if len(parts) == 1 or (not parts and wanted[1] != found.classes) or wanted[1] > found.classes:
        raise ValueError(f"it holds {wanted[1]} of {found.classes} classes")
    if found.indices is not None and not bool(((found.indices >= 0) & (found.indices < found.classes)).all()):
        raise ValueError("it names classes that there are not")
    if _digest(found) != digest:
        raise ValueError("its numbers are not those that were written")
