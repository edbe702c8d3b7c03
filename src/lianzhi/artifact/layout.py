"""What an artifact folder holds, and a look at it before anything is read."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lianzhi import files
from lianzhi.errors import ArtifactError

PathLike = str | os.PathLike[str]
FORMAT = 1
ARCHITECTURE = "architecture.json"
WEIGHTS = "model.safetensors"
ONNX = "model.onnx"
ENGINES = ("model.rtx.engine", "model.engine")
PACKED = "model.lzc"
CALIBRATION = "calibration.json"  # the ranges that a quantized file was made with
CACHE = "calibration.cache"  # the same, as TensorRT reads them
PREPROCESS = "preprocess.json"
LABELS = "labels.txt"
PREDICT = "predict.py"
IN_ONEFLOW = "run_in_oneflow.py"
ONEFLOW = ("model.py", "weights", IN_ONEFLOW)  # the source, the checkpoint, and the script that runs them
TOKENIZER = "tokenizer"
MEMBERS = frozenset(
    {ARCHITECTURE, WEIGHTS, ONNX, f"{ONNX}.data", PREPROCESS, LABELS, PREDICT, TOKENIZER, *ENGINES}
    | {PACKED, *ONEFLOW, CALIBRATION, CACHE, "recipe.yaml", "report.json", "report.md", "report.html"}
)

ALLOWED = "\t\u200c\u200d"  # joiners are part of the spelling of Persian and Indic words
_KEYS = {"format", "lianzhi", "kind", "weights", "ties", "inputs", "outputs", "difference", "digest"}
PLACED = frozenset(
    {"weights", "ties", "digest"}
)  # where the tensors lie: a file that holds both says it itself
_CONTROL = ("Cc", "Cf", "Cs", "Zl", "Zp")  # surrogates are what is left of a name that is no text
_KINDS = {"zoo": {"zoo"}, "graph": {"graph", "reason"}}
_MAGIC = {b"PK\x03\x04": "an archive", **{bytes((0x80, version)): "a pickle" for version in range(2, 8)}}
_PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".pt2", ".ckpt", ".joblib"}


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds links, pipes, devices, pickles or archives: no artifact has them; none is opened."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "there is no such folder"
        raise ArtifactError(f"{folder}: {what}; give the folder of an artifact")
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        for entry in entries:
            if entry.is_symlink():
                raise ArtifactError(
                    f"{entry.path} is a link; an artifact holds plain files only. Put the file itself there"
                )
            if entry.is_file(follow_symlinks=False):
                _check_file(Path(entry.path))
            elif not entry.is_dir(follow_symlinks=False):
                raise ArtifactError(
                    f"{entry.path} is a pipe, a socket or a device, not a plain file; an artifact holds none. "
                    f"It was not opened. Remove it"
                )
            elif entry.name == TOKENIZER:
                check_folder(Path(entry.path))
    except OSError as error:
        raise files.explain(error, folder, "read") from error


def _check_file(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(4)
    if path.suffix == ".safetensors":  # begins with its header's length, which may look like anything
        return
    found = next((what for magic, what in _MAGIC.items() if start.startswith(magic)), None)
    if found is None and path.suffix.lower() in _PICKLES:
        found = f"a '{path.suffix}' file"
    if found:
        raise ArtifactError(
            f"{path} is {found}, which can run code when it is opened; an artifact holds none. "
            f"It was not opened. Remove it if you put it there, else do not use this artifact"
        )


def is_plain(label: str) -> bool:
    """Whether a class's name is free of control characters, which could change what a terminal shows.

    >>> is_plain("T-shirt/top"), is_plain("cat\\x1b[31m"), is_plain("two\\nlines")
    (True, False, False)
    """
    return not any(unicodedata.category(letter) in _CONTROL and letter not in ALLOWED for letter in label)


def checked_labels(labels: Iterable[Any]) -> list[str]:
    """The names of the classes, of one line of plain text each, as ``labels.txt`` holds them."""
    names = [str(label) for label in labels]
    for name in names:
        if not is_plain(name):
            what = "several lines" if len(f"{name}.".splitlines()) > 1 else "control characters"
            raise ArtifactError(
                f"the label {name!r:.80} has {what}; give each class a name of one line of plain text"
            )
    return names


def read_architecture(folder: Path) -> dict[str, Any]:
    """`architecture.json`, of this format, with exactly the keys that its kind has."""
    path = files.member(folder, ARCHITECTURE)
    if not path.is_file():
        raise ArtifactError(f"{folder}: not an artifact folder (it has no {ARCHITECTURE})")
    data = files.read_json(path)
    data = check_architecture(data, path)
    if data["digest"] != own_digest(data):
        raise ArtifactError(f"{path} is damaged: its contents are not those that were saved; restore it")
    return data


def check_architecture(data: Any, path: PathLike, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """An architecture read from `path`, if it is of this format and has exactly its keys, but those in `without`."""
    version = data.get("format") if isinstance(data, dict) else None
    if type(version) is not int or version < 1:
        raise ArtifactError(f"{path} is damaged: it has no format version")
    if version > FORMAT:
        raise ArtifactError(
            f"{path} has format {version}, and this version of Lianzhi reads up to {FORMAT}; "
            f"update it: pip install --upgrade lianzhi"
        )
    own = _KINDS.get(data["kind"]) if isinstance(data.get("kind"), str) else None
    if own is None or data.keys() != _KEYS - without | own:
        raise ArtifactError(
            f"{path} is damaged or not made by Lianzhi: its keys are not those of format {version}"
        )
    return dict(data)


def own_digest(architecture: dict[str, Any]) -> str:
    """A digest of everything else in the file: it tells damage, not who wrote it."""
    rest = {key: value for key, value in architecture.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
