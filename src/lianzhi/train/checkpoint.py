"""Checkpoints: one safetensors file that holds tensors and position together, so that it is whole or absent.

Names are ``model/<parameter or buffer>`` and ``optimizer/<parameter>/<key>``; the position (epoch, step,
history, options, seed) is JSON in the file's own header. Nothing is pickled. A file is written under a
temporary name, flushed to the disk and renamed: a process killed at any moment leaves the old one or the
new one. Random numbers are functions of (seed, step, process), so the position stands for their state.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi.errors import ArtifactError

FORMAT = 1
HEADER = "lianzhi.train"


@dataclass
class Checkpoint:
    """Named tensors and JSON-ready values."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under ``prefix/``, without the prefix."""
        start = f"{prefix}/"
        return {
            name.removeprefix(start): value for name, value in self.tensors.items() if name.startswith(start)
        }


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer once, whatever it is tied to.

    >>> list(model_tensors(nn.Linear(2, 2)))
    ['weight', 'bias']
    """
    found = dict(model.named_parameters())
    found.update(model.named_buffers())
    return {name: tensor.detach() for name, tensor in found.items()}


def load_model(model: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Copy tensors into the model's own, in place: ties, devices and memory formats stay."""
    own = model_tensors(model)
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or extra:
        raise ArtifactError(
            f"{source}: the checkpoint is of another model (missing {missing[:3]}, unknown {extra[:3]}); "
            f"resume with the model that the training began with"
        )
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise ArtifactError(
                f"{source}: '{name}' has shape {tuple(tensors[name].shape)} in the checkpoint and "
                f"{tuple(tensor.shape)} in the model; resume with the model that the training began with"
            )
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by parameter name and key."""
    found = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                found[f"{name}/{key}"] = value
    return found


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put the state back, laid out in memory as each parameter is."""
    parameters = dict(model.named_parameters())
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        parameter = parameters[name]
        if value.shape == parameter.shape:
            own = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
        else:
            own = value.clone()
        optimizer.state[parameter][key] = own


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the one of the same name stays whole until the new one is on the disk.

    Raises:
        ArtifactError: it could not be written (full disk, say); the earlier one is untouched.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    temporary = path.with_name(f".{path.name}.writing")
    header = {HEADER: json.dumps({"format": FORMAT, **checkpoint.values})}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file({name: _own(value) for name, value in checkpoint.tensors.items()}, temporary, header)
        temporary.chmod(mode)  # safetensors leaves files that only their owner can read
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ArtifactError(
            f"{path}: the checkpoint could not be written ({error}); "
            f"{'the one before it is untouched' if path.exists() else 'there is none before it'}. "
            f"Free disk space or choose another folder, then resume"
        ) from error


def read(path: Path) -> Checkpoint | None:
    """Read a checkpoint; None where there is none.

    Raises:
        ArtifactError: the file is damaged, or of a newer format.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            values = json.loads((file.metadata() or {})[HEADER])
            # clones: the tensors of the library may be views of the file, which will be replaced
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ArtifactError(
            f"{path}: not a training checkpoint, or a damaged one ({error}); remove it to begin again"
        ) from error
    version = values.pop("format", None)
    if version != FORMAT:
        raise ArtifactError(
            f"{path}: the checkpoint has format {version}, this version reads {FORMAT}; update lianzhi"
        )
    return Checkpoint(tensors, values)


def _own(tensor: Tensor) -> Tensor:
    """A tensor on the CPU that is contiguous and alone in its storage, as safetensors wants it."""
    tensor = tensor.detach().cpu().contiguous()
    alone = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if alone else tensor.clone()


def _flush(path: Path) -> None:
    """Ask the disk to keep a file or a folder's entries, through a power cut too."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
