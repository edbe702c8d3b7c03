"""The words of a text: where each stands, and which may be replaced."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

_HAN = "㐀-䶿一-鿿"
_WORD = re.compile(
    rf"[{_HAN}]|[^\W{_HAN}]+"
)  # a Chinese character counts as a word, as BERT's tokenizer has it

# English words that carry little meaning, and pieces of their contractions.
STOP_WORDS = frozenset(
    [
        "a",
        "about",
        "above",
        "after",
        "again",
        "against",
        "all",
        "also",
        "although",
        "am",
        "an",
        "and",
        "any",
        "are",
        "as",
        "at",
        "be",
        "because",
        "been",
        "before",
        "being",
        "below",
        "between",
        "both",
        "but",
        "by",
        "can",
        "cannot",
        "could",
        "did",
        "do",
        "does",
        "doing",
        "done",
        "down",
        "during",
        "each",
        "either",
        "else",
        "ever",
        "every",
        "few",
        "for",
        "from",
        "further",
        "had",
        "has",
        "have",
        "having",
        "he",
        "hence",
        "her",
        "here",
        "hers",
        "herself",
        "him",
        "himself",
        "his",
        "how",
        "however",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "itself",
        "just",
        "least",
        "less",
        "many",
        "may",
        "me",
        "might",
        "mine",
        "more",
        "most",
        "much",
        "must",
        "my",
        "myself",
        "neither",
        "no",
        "nor",
        "not",
        "now",
        "of",
        "off",
        "on",
        "once",
        "one",
        "only",
        "onto",
        "or",
        "other",
        "others",
        "our",
        "ours",
        "ourselves",
        "out",
        "over",
        "own",
        "per",
        "quite",
        "rather",
        "same",
        "shall",
        "she",
        "should",
        "since",
        "so",
        "some",
        "such",
        "than",
        "that",
        "the",
        "their",
        "theirs",
        "them",
        "themselves",
        "then",
        "there",
        "these",
        "they",
        "this",
        "those",
        "though",
        "through",
        "thus",
        "to",
        "too",
        "under",
        "until",
        "up",
        "upon",
        "us",
        "very",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "whether",
        "which",
        "while",
        "who",
        "whom",
        "whose",
        "why",
        "will",
        "with",
        "within",
        "without",
        "would",
        "yet",
        "you",
        "your",
        "yours",
        "yourself",
        "yourselves",
        "s",
        "t",
        "d",
        "m",
        "ll",
        "re",
        "ve",
        "don",
        "didn",
        "doesn",
        "isn",
        "aren",
        "wasn",
        "weren",
        "hasn",
        "haven",
        "hadn",
        "won",
        "wouldn",
        "couldn",
        "shouldn",
        "mustn",
        "needn",
        "ain",
    ]
)


@dataclass(frozen=True)
class Word:
    """A word that may be replaced: ``text[begin:end]``."""

    begin: int
    end: int
    text: str


def words_of(text: str, stop_words: Collection[str] = STOP_WORDS) -> list[Word]:
    """The words that may be replaced: letters only, and no stop-words.

    >>> [word.text for word in words_of("It isn't a bad film, 2nd of 3!")]
    ['bad', 'film']
    """
    return [
        Word(found.start(), found.end(), found.group())
        for found in _WORD.finditer(text)
        if found.group().isalpha() and found.group().casefold() not in stop_words
    ]


def replaced(text: str, words: Sequence[Word], choices: Mapping[int, str]) -> str:
    """The text with some of its words, by their place in `words`, replaced.

    >>> replaced("a bad film", words_of("a bad film"), {0: "good"})
    'a good film'
    """
    parts, at = [], 0
    for place in sorted(choices):
        parts += [text[at : words[place].begin], choices[place]]
        at = words[place].end
    return "".join([*parts, text[at:]])
