"""Parquet files of a data set on the Hugging Face hub, from its local cache or the network."""

from __future__ import annotations

import os
from pathlib import Path

from lianzhi.errors import DataError


def fetch(repository: str, pattern: str = "*.parquet") -> Path:
    """Return the local folder with the repository's files that match.

    Raises:
        DataError: the hub cannot be reached, or has no such data set.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError:
        raise DataError("huggingface_hub is not installed: pip install 'lianzhi[data]'") from None
    try:
        folder = Path(
            snapshot_download(repository, repo_type="dataset", allow_patterns=pattern, local_files_only=True)
        )
        if any(folder.rglob("*.parquet")):
            return folder
    except (OSError, ValueError):
        pass  # not in the local cache: ask the network
    try:
        HfApi().dataset_info(repository, timeout=10)
        return Path(snapshot_download(repository, repo_type="dataset", allow_patterns=pattern))
    except Exception as error:  # the client lets its transport's own exceptions through
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"the Hugging Face hub does not give {repository} ({said})") from None
