"""GLUE's tasks (Wang et al. 2018, 1804.07461): where each lies in GLUE's own download and on the hub.

GLUE's labels of its test part are secret: ``dev`` is what is reported, and what one chooses by is cut from train.
"""

from __future__ import annotations

from typing import Any

from lianzhi.tasks.known_text import KnownText, OnHub, Tsv

HUB = "nyu-mll/glue"
PAPER = "https://arxiv.org/abs/1804.07461"
TSV = {"train": "train.tsv", "test": "dev.tsv"}
SPLITS = {"train": "train", "test": "validation"}


def glue(
    name: str,
    folder: str,
    *,
    texts: tuple[str, ...],
    hub_texts: tuple[str, ...] | None = None,
    label: str = "label",
    header: tuple[str, ...] | None = None,
    files: dict[str, str] | None = None,
    splits: dict[str, str] | None = None,
    **facts: Any,
) -> KnownText:
    """One of the tasks: its folder, its columns there, and those on the hub where they differ; `facts` as `KnownText`.

    >>> glue("rte", "RTE", texts=("sentence1", "sentence2"), labels=("a", "b"), metrics={}).needs
    "give data: a folder with train.tsv and dev.tsv (GLUE's RTE)"
    """
    tables = {part: Tsv(file, texts, label, header) for part, file in (files or TSV).items()}
    hub = OnHub(HUB, name, splits or SPLITS, hub_texts or texts)
    return KnownText(name=name, title=f"GLUE's {folder}", folder=folder, layouts=(tables,), hub=hub, **facts)
