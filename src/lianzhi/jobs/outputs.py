"""The file that a command writes: a name of the right ending, in a folder that is there, and free."""

from __future__ import annotations

from pathlib import Path

from lianzhi.errors import ArtifactError, RecipeError


def require_free(output: str | Path, suffix: str, *, force: bool) -> Path:
    """The path, once it is sure that it may be written; writes nothing.

    Raises:
        RecipeError: it does not end in `suffix`.
        ArtifactError: its folder is not there, or something is there already, unless it is a file and `force`.
    """
    path = Path(output)
    if path.suffix != suffix:
        raise RecipeError(f"-o {output}: give a name that ends in {suffix}")
    if not path.parent.is_dir():
        raise ArtifactError(f"-o {output}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise ArtifactError(f"-o {output}: is a folder; give the name of a file")
    if path.exists() and (not force or not path.is_file()):
        raise ArtifactError(f"-o {output}: is there already; give another name, or add --force")
    return path
