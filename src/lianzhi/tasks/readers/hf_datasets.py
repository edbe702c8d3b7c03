"""A data set of the Hugging Face hub through `datasets`, which keeps its own cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from lianzhi.errors import DataError, did_you_mean


def read(repository: str, subset: str | None, split: str, columns: Sequence[str]) -> dict[str, list[Any]]:
    """The columns of one split.

    Raises:
        DataError: `datasets` is not installed, the hub does not give the data, or a column is missing.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import datasets
    except ImportError:
        raise DataError("datasets is not installed; run: pip install 'lianzhi[data]'") from None
    try:
        table = datasets.load_dataset(repository, subset, split=split)
    except Exception as error:  # the library lets the exceptions of many others through
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"the Hugging Face hub does not give {repository} ({said})") from None
    names = list(table.column_names)
    for column in columns:
        if column not in names:
            raise DataError(f"{repository}, {split}: no column '{column}'{did_you_mean(column, names)}")
    return {column: list(table[column]) for column in columns}
