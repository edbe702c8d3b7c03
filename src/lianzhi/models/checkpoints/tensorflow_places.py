"""Where the files of a TensorFlow checkpoint lie, and which of several is meant."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lianzhi import files
from lianzhi.errors import ArtifactError, listed
from lianzhi.files.disk import PathLike
from lianzhi.models.checkpoints import sstable

LAST = "checkpoint"  # the file that names the last of several
_SHARD = re.compile(r"\.data-\d{5}-of-\d{5}$")


def find_stem(place: PathLike) -> Path | None:
    """The prefix that a checkpoint's files have in common; None where there is no checkpoint.

    `place` is the prefix, one of the files, the folder of one checkpoint, or that of several with the file ``checkpoint`` that
    names the last, or a SavedModel's.
    """
    path = files.expanded(place)
    if path.is_dir():
        return _stem_in(path)
    text = os.fspath(path)
    for stem in (text, text.removesuffix(".index"), _SHARD.sub("", text)):
        if os.path.lexists(f"{stem}.index"):
            return Path(stem)
    return None


def _stem_in(folder: Path) -> Path | None:
    """The checkpoint in a folder: the one that the file ``checkpoint`` names, or the only one."""
    if (folder / "saved_model.pb").is_file():
        return find_stem(folder / "variables" / "variables")
    found = sorted(folder.glob("*.index"))
    if len(found) < 2:
        return find_stem(found[0]) if found else None
    last = None
    if (folder / LAST).is_file():
        last = re.search(r'^model_checkpoint_path: "([^"\n]+)"', files.read_text(folder / LAST), re.MULTILINE)
    stem = None if last is None else find_stem(folder / Path(last[1]).name)
    if stem is None:
        raise ArtifactError(
            f"{folder}: holds {len(found)} checkpoints ({listed(file.stem for file in found)}); give one, without its ending"
        )
    return stem


def is_first_format(path: Path) -> bool:
    """Whether a file is a checkpoint of TensorFlow's first format (V1): one sorted table of everything."""
    if not path.is_file():
        return False
    try:
        with open(path, "rb", opener=files.open_regular) as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - sstable.FOOTER))
            return sstable.is_table(stream.read())
    except OSError as error:
        raise files.explain(error, path, "read") from error


def refuse_first_format(path: Path) -> None:
    """Raise `ArtifactError` for a checkpoint of the first format, which says how it becomes one of the second."""
    if is_first_format(path):
        raise ArtifactError(
            f"{path} is a checkpoint of TensorFlow's first format (V1), which is not read; load it in TensorFlow and save it "
            f"again: tf.compat.v1.train.Saver().save(session, PREFIX) writes the second"
        )
