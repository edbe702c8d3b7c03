"""A tiny WordPiece tokenizer, a tiny BERT and a tiny SST-2, made by the tests."""

from __future__ import annotations

import itertools
import random
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

GOOD = ("good", "great", "fine", "warm", "funny", "clever", "moving", "fresh")
BAD = ("bad", "dull", "poor", "cold", "stale", "silly", "empty", "slow")
THINGS = ("film", "plot", "cast", "score", "story", "scene")
MORE = ("a", "the", "and", "but", "very", "one", "more", "with", "of", "it", "is", "never")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = (*SPECIAL, *MORE, *THINGS, *GOOD, *BAD, "##s", "##ly", ".", '"', "'")
SIGNS = (*string.ascii_lowercase, *string.punctuation)
SPELLED = tuple(dict.fromkeys([*WORDS, *SIGNS, *(f"##{sign}" for sign in SIGNS), "unheard", "unseen"]))
SIZES = {
    "model_type": "bert",
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


def tokenizer(words: Sequence[str] = WORDS) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    made = Tokenizer(models.WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    made.enable_padding(length=40)  # as published ones have it; it has to be switched off
    return made


def write_tokenizer(folder: Path, words: Sequence[str] = WORDS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer(words).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"pad_token": "[PAD]", "auto_map": {"a": "b"}}')
    return folder


def write_model(folder: Path, **changes: Any) -> Path:
    """A folder with the weights of a plain BertModel."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    values = {key: value for key, value in {**SIZES, **changes}.items() if key != "model_type"}
    BertModel(BertConfig(**values)).save_pretrained(folder)
    return write_tokenizer(folder)


def sentences(count: int, seed: int) -> list[tuple[str, int]]:
    """Different sentences with their label: the kind of adjective in them."""
    draw = random.Random(seed)
    made: dict[str, int] = {}
    while len(made) < count:
        label = len(made) % 2
        words = [
            *draw.choices(MORE, k=draw.randint(0, 7)),
            draw.choice(GOOD if label else BAD),
            draw.choice(THINGS),
        ]
        made.setdefault(" ".join(words), label)
    return list(made.items())


def write_table(file: Path, rows, header: str = "sentence\tlabel", mark: str = "", end: str = "\n") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [header, *("\t".join(map(str, row)) for row in rows)]
    file.write_bytes((mark + end.join(lines) + end).encode())
    return file


def write_sst2(folder: Path, train: int = 360, dev: int = 60) -> Path:
    """SST-2's two files; the second half of the sentences is in neither."""
    rows = sentences(train + dev, 0)
    write_table(folder / "train.tsv", rows[:train])
    write_table(folder / "dev.tsv", rows[train:])
    return folder


def write_stsb(folder: Path, train: int = 240, dev: int = 40) -> Path:
    """STS-B's two files: pairs whose score is the share of good adjectives."""
    others = sentences(2 * (train + dev), 1)
    rows = []
    for at, (one, first) in enumerate(sentences(train + dev, 0)):
        two, second = others[2 * at + at // 2 % 2]
        score = f"{(first + second) / 2:.3f}"
        rows.append((at, "g", "f", "2012", at, "none", "none", one, two, score))
    names = "index genre filename year old_index source1 source2 sentence1 sentence2 score".replace(" ", "\t")
    write_table(folder / "train.tsv", rows[:train], header=names)
    write_table(folder / "dev.tsv", rows[train:], header=names)
    return folder


def tokens(batch: int, length: int, seed: int = 0, *, hidden: bool = True) -> dict[str, torch.Tensor]:
    """Random inputs of a tiny BERT; the second sample of a batch is padded from its middle on."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(batch, length, dtype=torch.long)
    if batch > 1 and hidden:
        mask[1, length // 2 + 1 :] = 0
    ids = torch.randint(4, len(WORDS), (batch, length), generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(mask)}


def flat(parts) -> list[Any]:
    return list(itertools.chain.from_iterable(parts))
