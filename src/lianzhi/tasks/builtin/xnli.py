"""XNLI (Conneau et al. 2018, 1809.05053): MNLI's question in 15 languages, 392,702 + 2,490 + 5,010 pairs each.

The training part is MNLI's, translated by machine (``XNLI-MT-1.0``); the two others are translated by people
(``XNLI-1.0``) and hold all languages in one file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from lianzhi.tasks._task import Task
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.confusion import class_metrics
from lianzhi.tasks.known_text import NLI, KnownText, OnHub, Tsv, open_text
from lianzhi.tasks.text import TextOptions

Language = Literal["ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh"]
WORDS = {name: number for number, name in enumerate(NLI)} | {"contradictory": NLI.index("contradiction")}


class XnliOptions(TextOptions):
    """Options of `xnli`."""

    language: Language = Field(default="en", description="two letters: en, zh and 13 more")


def described(language: str) -> KnownText:
    """Where the pairs of a language are."""
    return KnownText(
        name="xnli",
        title="XNLI",
        folder="XNLI",
        layouts=(
            _layout("XNLI-MT-1.0/multinli/", "XNLI-1.0/", language),
            _layout("", "", language),
        ),
        hub=OnHub(
            "facebook/xnli",
            language,
            {"train": "train", "validation": "validation", "test": "test"},
            ("premise", "hypothesis"),
        ),
        labels=NLI,
        words=WORDS,
        metrics=class_metrics(3),
        gaps=True,
    )


def _layout(train: str, rest: str, language: str) -> dict[str, Tsv]:
    others = {
        part: Tsv(
            f"{rest}xnli.{file}.tsv", ("sentence1", "sentence2"), "gold_label", only=("language", language)
        )
        for part, file in {"validation": "dev", "test": "test"}.items()
    }
    return {
        "train": Tsv(f"{train}multinli.train.{language}.tsv", ("premise", "hypo"), "label"),
        **others,
    }


@registry.register(
    "xnli",
    "XNLI: MNLI's question in one of 15 languages, 392,702 + 2,490 + 5,010 pairs",
    paper="https://arxiv.org/abs/1809.05053",
    config=XnliOptions,
)
def xnli(data: Path | None, options: XnliOptions) -> Task:
    """Make the task from the authors' files, Parquet, or the hub."""
    return open_text(described(options.language), data, options)
