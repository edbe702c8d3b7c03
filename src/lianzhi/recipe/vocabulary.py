"""The step `reduce_vocabulary`: which tokens stay."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from lianzhi.config import Config


class ReduceVocabulary(Config):
    """Drop the tokens that the training texts do not need, and their rows of the embeddings.

    >>> ReduceVocabulary(size=8000).least
    1

    Special tokens and those of one character stay, so that every word can still be read, in more pieces.
    """

    kind: ClassVar[str] = "reduce_vocabulary"
    size: int | None = Field(default=None, ge=1, description="tokens in all; null: all that occur")
    least: int = Field(default=1, ge=1, description="how often a token has to occur in the training texts")
