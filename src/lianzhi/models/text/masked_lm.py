"""A masked language model of any architecture from a Hugging Face folder: the teacher of words.

It is no classifier, so it is not in the zoo; weights are read from safetensors only, and no code beside them is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from lianzhi import files
from lianzhi.errors import ArtifactError, listed
from lianzhi.models.text.huggingface import PATTERNS, require_safetensors
from lianzhi.models.text.library import explained, transformers


def find_masked_lm(place: str) -> Path:
    """The local folder of a masked LM: a folder, ``package:NAME/folder``, or a name on the hub.

    Raises:
        ArtifactError: there is no such folder, or it holds no model in safetensors.
    """
    try:
        folder = files.find_folder(place, PATTERNS)
    except ArtifactError as error:
        raise ArtifactError(
            f"masked LM: {error}; give a Hugging Face folder of a model with a masked-LM head"
        ) from None
    if not (folder / "config.json").is_file():
        raise ArtifactError(f"masked LM: {folder}: not the folder of a Hugging Face model (no config.json)")
    require_safetensors(folder)
    return folder


def read_masked_lm(folder: Path) -> nn.Module:
    """The model in eval mode, whose output has ``logits`` of shape (batch, tokens, vocabulary).

    Raises:
        ArtifactError: the weights are damaged, are of another model, or have no masked-LM head.
    """
    library = transformers()
    try:
        with explained(), torch.random.fork_rng(devices=[]):
            model, told = library.AutoModelForMaskedLM.from_pretrained(
                str(folder),
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:
        if type(error).__module__.startswith("lianzhi"):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(
            f"{folder}: cannot be read as a masked LM ({type(error).__name__}: {reason}); give a folder of a "
            f"...ForMaskedLM model"
        ) from None
    _require_head(model, folder, told)
    read: nn.Module = model.eval()
    return read


def _require_head(model: Any, folder: Path, told: dict[str, Any]) -> None:
    """A head that is not in the files would be random, and so would be what it says of words."""
    missing = sorted(told["missing_keys"])
    if not missing:
        return
    raise ArtifactError(
        f"{folder}: holds no weights for {listed(missing)} of a {type(model).__name__}; give the folder of a model that "
        f"was saved with its masked-LM head"
    )
