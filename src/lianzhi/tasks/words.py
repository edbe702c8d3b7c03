"""A tokenizer of whole words, for models over word vectors: lower case, punctuation and contractions split off.

It is a ``tokenizer.json`` like any other (a `WordLevel` model of the library `tokenizers`), so that artifacts,
``predict.py`` and all else that takes texts work with it unchanged. Words are split as the corpora of GloVe are
("do n't", "it 's"), whether a text has them split already or not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from lianzhi.errors import DataError
from lianzhi.tasks.text_preprocess import NAMES, TextPreprocess
from lianzhi.tasks.tokenizer import FILE, library

PLACE = "words"
DEFAULT_SIZE = 10_000
PAD, UNKNOWN, MASK = "[PAD]", "[UNK]", "[MASK]"
MOST = 1 << 22
_MASKED = MASK.lower()
# a masked word is one word, which no vocabulary has; then Chinese signs, contractions, words, and other signs
_PATTERN = r"\[mask\]|[㐀-鿿]|[^\W㐀-鿿]+?(?=n't\b)|n't\b|'(?:s|m|d|re|ve|ll)\b|[^\W㐀-鿿]+|[^\w\s]"
WORD = re.compile(_PATTERN, re.IGNORECASE)


def word_tokenizer(texts: Iterable[str], size: int = DEFAULT_SIZE) -> str:
    """The ``tokenizer.json`` of the commonest words of `texts`; give it those of the training split alone.

    >>> import json
    >>> made = json.loads(word_tokenizer(["It's a good film", "a GOOD cast, a bad plot"], size=5))
    >>> made["model"]["vocab"]
    {'[PAD]': 0, '[UNK]': 1, 'a': 2, 'good': 3, "'s": 4}

    `size` counts all entries, those of padding and unknown words included. Of words that are as common the first
    in the alphabet is taken. A word that was masked (``[MASK]``) is an unknown one.

    Raises:
        DataError: there are no words, `size` is out of range, or `tokenizers` is not installed.
    """
    if not 3 <= size <= MOST:
        raise DataError(
            f"a vocabulary of {size} words; give 3 to {MOST:,}, padding and unknown words included"
        )
    counts: Counter[str] = Counter()
    for words in split_words(texts):
        counts.update(words)
    for name in (PAD, UNKNOWN, _MASKED):
        counts.pop(name, None)
    if not counts:
        raise DataError("there are no words to make a vocabulary of; give texts of the training split")
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return str(_tokenizer(ordered[: size - 2]).to_str())


def of_words(
    texts: Iterable[str], *, max_length: int, size: int = DEFAULT_SIZE, pairs: bool = False
) -> TextPreprocess:
    """The preprocessing of a word vocabulary of these texts; for `pairs` the model is told which text a word is of.

    >>> made = of_words(["a good film"], max_length=16)
    >>> made.vocabulary, made("A bad film")["input_ids"].tolist()
    (('[PAD]', '[UNK]', 'a', 'film', 'good'), [[2, 1, 3]])
    """
    inputs = NAMES if pairs else NAMES[:2]
    return TextPreprocess(max_length, inputs, members={FILE: word_tokenizer(texts, size)})


def size_of(place: str) -> int | None:
    """How large a vocabulary the place of a tokenizer asks for, if it asks for one: ``words`` or ``words:5000``.

    >>> size_of("words"), size_of("words:5000"), size_of("models/bert")
    (10000, 5000, None)

    Raises:
        DataError: what follows is not a number.
    """
    name, _, number = place.partition(":")
    if name != PLACE:
        return None
    if (number and not re.fullmatch(r"\d{1,7}", number)) or place == f"{PLACE}:":
        raise DataError(
            f"tokenizer: {place!r:.60}: write words, or words:5000 with how many there are at most"
        )
    return int(number) if number else DEFAULT_SIZE


def split_words(texts: Iterable[str]) -> Iterator[list[str]]:
    """The words of each text, as the tokenizer of words takes them.

    >>> list(split_words(["I don't like it's plot."]))
    [['i', 'do', "n't", 'like', 'it', "'s", 'plot', '.']]
    """
    tokenizer = _tokenizer([])
    for text in texts:
        lowered = tokenizer.normalizer.normalize_str(text)
        yield [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(lowered)]


def _tokenizer(words: list[str]) -> Any:
    """The library's object for these words, in the order of their ids after padding and the unknown word."""
    tokenizers = library()
    table = {word: place for place, word in enumerate([PAD, UNKNOWN, *words])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(table, unk_token=UNKNOWN))
    made.normalizer = tokenizers.normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=True
    )
    pattern = tokenizers.Regex(_PATTERN)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split(pattern, behavior="removed", invert=True)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A", pair="$A $B:1", special_tokens=[]
    )
    return made


def are_words(preprocess: TextPreprocess) -> bool:
    """Whether a tokenizer is one of whole words, and not of pieces.

    >>> are_words(of_words(["a good film"], max_length=8))
    True
    """
    return type(preprocess.tokenizer.model).__name__ == "WordLevel"
