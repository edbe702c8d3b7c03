"""Where a model or tokenizer that somebody else made lies: a folder, an installed package, or the hub.

``package:NAME/sub/folder`` is a folder inside an installed Python package, which is found without being imported.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path

from lianzhi.errors import ArtifactError
from lianzhi.files.disk import PathLike

PACKAGE = "package:"


def expanded(place: PathLike) -> Path:
    """A path with its leading ``~`` put in full, as a shell does it: a name that no user has stays as it is.

    >>> expanded("~no-such-user/model").as_posix()
    '~no-such-user/model'
    """
    return Path(os.path.expanduser(place))


def find_folder(place: PathLike, patterns: Sequence[str]) -> Path:
    """The local folder of `place`; from the hub the files that match `patterns` are fetched.

    >>> find_folder("package:json", []).name
    'json'
    >>> find_folder("package:no_such/model", [])
    Traceback (most recent call last):
        ...
    lianzhi.errors.ArtifactError: package:no_such/model: the package 'no_such' is not installed; run: pip install no-such

    Raises:
        ArtifactError: there is no such folder or package, or the hub does not give it.
    """
    text = os.fspath(place)
    if text.startswith(PACKAGE):
        return _in_package(text)
    folder = expanded(text)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ArtifactError(f"{text} is a file; give the folder that it lies in")
    if not re.fullmatch(r"[\w.\-]+(/[\w.\-]+)?", text) or text.startswith("."):
        raise ArtifactError(f"{text}: there is no such folder")
    return _from_hub(text, patterns)


def _in_package(place: str) -> Path:
    name, _, rest = place.removeprefix(PACKAGE).partition("/")
    if not name.isidentifier():
        raise ArtifactError(f"{place}: write it as package:NAME/folder, with the name that is imported")
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ArtifactError(
            f"{place}: the package '{name}' is not installed; run: pip install {name.replace('_', '-')}"
        )
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    folder = (root / rest).resolve()
    if not folder.is_relative_to(root) or not folder.is_dir():
        raise ArtifactError(f"{place}: the package has no folder '{rest}' ({root})")
    return folder


def _from_hub(name: str, patterns: Sequence[str]) -> Path:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ArtifactError(
            f"{name}: there is no such folder; to fetch it from the hub run: pip install 'lianzhi[text]'"
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns), local_files_only=True))
    except (OSError, ValueError):
        pass  # not in the local cache: ask the network
    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns), etag_timeout=10))
    except Exception as error:  # the client lets its transport's own exceptions through
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise ArtifactError(
            f"{name}: there is no such folder, and the Hugging Face hub does not give it ({said})"
        ) from None
