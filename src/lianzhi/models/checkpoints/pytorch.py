"""State dicts in files of PyTorch and of safetensors. Only tensors are read: no code in a file is ever run."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lianzhi import files
from lianzhi.errors import ArtifactError
from lianzhi.files.disk import PathLike
from lianzhi.models.checkpoints.state_dicts import find_state_dict

SAFE = ".safetensors"
PICKLED = (".pt", ".pth", ".bin", ".ckpt")


def read_pytorch(path: PathLike) -> dict[str, Tensor]:
    """Read a state dict from a `.safetensors`, `.pt`, `.pth`, `.bin` or `.ckpt` file, on the CPU.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"state_dict": {"module.bias": torch.ones(2)}}, folder + "/a.pth")
    ...     read_pytorch(folder + "/a.pth")
    {'bias': tensor([1., 1.])}

    A dict with a state dict under ``state_dict`` or ``model`` is opened (all beside it is ignored), and the prefix ``module.``
    that `DataParallel` puts before every name is taken away.
    """
    return read_model(path)[0]


def read_model(path: PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The same, and what was left out: its name, and what it is."""
    source = files.expanded(path)
    left_out: dict[str, str] = {}
    if source.suffix == SAFE:
        tensors = files.read_tensors(source)
    else:
        tensors, left_out = find_state_dict(source, _unpickle(source))
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors, left_out


def _unpickle(source: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that are refused below
            with open(source, "rb", opener=files.open_regular) as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("WeightsUnpickler error:")[-1].strip().splitlines()
        raise ArtifactError(
            f"{source} is not a file of tensors alone ({reason[0] if reason else 'not a pickle'}); anything else "
            f"could run code and was not opened. Save the weights alone: torch.save(model.state_dict(), path)"
        ) from None
    except OSError as error:
        raise files.explain(error, source, "read") from error
    except Exception as error:  # damage can make the reader fail in any way
        raise ArtifactError(f"{source} is damaged: {str(error)[:200]}; restore it") from None
