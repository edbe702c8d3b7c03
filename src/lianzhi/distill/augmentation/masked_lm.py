"""What a masked language model would put in a word's place, the word itself hidden and the sentence known.

Jiao et al. 2020 (1909.10351), algorithm 1, as the authors' code has it: the model reads "[CLS] sentence with the word
masked [SEP] sentence as it is [SEP]". Pieces of words (##) and signs are no candidates; nor is the word itself, which
the authors allow, so that a replacement is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lianzhi.distill.augmentation.words import Word
from lianzhi.errors import DataError
from lianzhi.models.text.masked_lm import find_masked_lm, read_masked_lm
from lianzhi.tasks import cache, hashing
from lianzhi.tasks.corpus.frame import frame_of
from lianzhi.tasks.text_preprocess import TextPreprocess
from lianzhi.tasks.waiting import tracked

VERSION = 2
TEXTS_AT_ONCE = 1024  # texts of an entry of the cache: an interrupted run goes on behind the last one
MOST_TOKENS = 512
NONE = -1


@dataclass(frozen=True)
class Question:
    """A word to be hidden in a text, and its token."""

    text: str
    word: Word
    token: int


class MaskedLM:
    """A masked LM and its tokenizer. The weights are read when the first answer is not in the cache."""

    def __init__(self, place: str, *, batch_size: int = 64, device: str = "cpu") -> None:
        self.folder: Path = find_masked_lm(place)
        self.batch_size, self.device = batch_size, torch.device(device)
        self.preprocess = TextPreprocess.open(str(self.folder), max_length=MOST_TOKENS)
        self.frame = frame_of(self.preprocess)
        self._tokens: dict[str, int | None] = {}
        if self.frame.mask is None:
            raise DataError(f"masked LM: {self.folder}: its tokenizer has no mask token; give another model")

    @cached_property
    def model(self) -> nn.Module:
        """The model, on its device, in eval mode."""
        return read_masked_lm(self.folder).to(self.device)

    @cached_property
    def digest(self) -> str:
        """Changes with weights, config and tokenizer."""
        kinds = ("*.safetensors", "config.json", "tokenizer*.json")
        return cache.digest_files(sorted(file for kind in kinds for file in self.folder.glob(kind)))

    @cached_property
    def whole_words(self) -> dict[int, str]:
        """The tokens that are words by themselves."""
        tokenizer = self.preprocess.tokenizer
        begin = [token for token in self.frame.ordinary.tolist() if not self.frame.goes_on[token]]
        texts = [tokenizer.decode([token]).strip() for token in begin]
        return {token: text for token, text in zip(begin, texts, strict=True) if text.isalpha()}

    def token_of(self, word: str) -> int | None:
        """The token of a one-piece word, as it is in a sentence: some tokenizers count the space before it; None for others."""
        if word not in self._tokens:
            tokenizer = self.preprocess.tokenizer
            found = (tokenizer.encode(text, add_special_tokens=False).ids for text in (word, f" {word}"))
            whole = (int(ids[0]) for ids in found if len(ids) == 1 and ids[0] in self.whole_words)
            self._tokens[word] = next(whole, None)
        return self._tokens[word]

    def candidates(
        self, texts: Sequence[str], words: Sequence[Sequence[Word]], count: int, *, progress: bool = False
    ) -> list[list[list[str]]]:
        """The best `count` words for each word of each text; none for words of several pieces.

        Texts are asked in parts, which are kept in the cache by texts, model and `count`.
        """
        starts = range(0, len(texts), TEXTS_AT_ONCE)
        found: list[list[list[str]]] = []
        for start in tracked(starts, "masked LM", shown=progress):
            part = slice(start, start + TEXTS_AT_ONCE)
            found += self._part(texts[part], words[part], count)
        return found

    def _part(
        self, texts: Sequence[str], words: Sequence[Sequence[Word]], count: int
    ) -> list[list[list[str]]]:
        places = [f"{word.begin}-{word.end}" for row in words for word in row]
        key = hashing.digest(str(VERSION), self.digest, str(count), "\0".join(texts), " ".join(places))
        table = cache.array(f"masked-lm-{key}", lambda: self._answers(texts, words, count))
        rows = iter(table.tolist())
        return [
            [[self.whole_words[token] for token in next(rows) if token != NONE] for _ in row] for row in words
        ]

    def _answers(
        self, texts: Sequence[str], words: Sequence[Sequence[Word]], count: int
    ) -> NDArray[np.int32]:
        """Tokens by rank for each word in a row, -1 where there is none: (words, count)."""
        asked: list[tuple[int, Question]] = []
        place = 0
        for text, row in zip(texts, words, strict=True):
            for word in row:
                token = self.token_of(word.text)
                if token is not None:
                    asked.append((place, Question(text, word, token)))
                place += 1
        table = np.full((place, count), NONE, np.int32)
        asked.sort(key=lambda item: len(item[1].text))  # batches of like length
        for start in range(0, len(asked), self.batch_size):
            batch = asked[start : start + self.batch_size]
            table[[number for number, _ in batch]] = self._ask([question for _, question in batch], count)
        return table

    def _ask(self, questions: Sequence[Question], count: int) -> NDArray[np.int32]:
        """One pass of the model. A word that the model's length cuts off has no candidates."""
        inputs, places = self._inputs(questions)
        answers = np.full((len(questions), count), NONE, np.int32)
        seen = [row for row, place in enumerate(places) if place is not None]
        if not seen:
            return answers
        with torch.no_grad():
            logits: Tensor = self.model(**inputs).logits.float()
        chosen = logits[seen, [places[row] for row in seen]]
        allowed = torch.full((chosen.shape[1],), -torch.inf, device=chosen.device)
        allowed[list(self.whole_words)] = 0.0
        scores = chosen + allowed
        scores[torch.arange(len(seen)), [questions[row].token for row in seen]] = -torch.inf
        best = scores.topk(min(count, scores.shape[1]), dim=1)
        tokens = torch.where(best.values.isfinite(), best.indices, NONE)
        answers[seen, : tokens.shape[1]] = tokens.cpu().numpy()
        return answers

    def _inputs(self, questions: Sequence[Question]) -> tuple[dict[str, Tensor], list[int | None]]:
        """The batch, and where the hidden word stands in each row."""
        tokenizer: Any = self.preprocess.tokenizer
        assert self.frame.mask is not None
        mask = tokenizer.id_to_token(self.frame.mask)
        texts = [
            (f"{item.text[: item.word.begin]}{mask}{item.text[item.word.end :]}", item.text)
            for item in questions
        ]
        found = tokenizer.encode_batch(texts)
        places = [one.ids.index(self.frame.mask) if self.frame.mask in one.ids else None for one in found]
        arrays = self.preprocess.collate(
            [np.asarray(one.ids) for one in found], [np.asarray(one.type_ids) for one in found]
        )
        return {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}, places
