"""A tokenizer with a mask, small corpora in every format, and tiny masked-LM models, made by the tests."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    "the",
    "a",
    "film",
    "plot",
    "cast",
    "good",
    "bad",
    "dull",
    "fine",
    "is",
    "was",
    "and",
    "very",
    "play",
)
PIECES = ("##s", "##ing", "##er", "##ed")
SIGNS = (".", ",", '"', "'")
VOCABULARY = (*SPECIAL, *WORDS, *PIECES, *SIGNS)


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    places = {word: place for place, word in enumerate(VOCABULARY)}
    made = Tokenizer(models.WordPiece(places, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    made.add_special_tokens(list(SPECIAL))
    return made


def write_tokenizer(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"mask_token": "[MASK]", "pad_token": "[PAD]"}))
    (folder / "config.json").write_text(json.dumps({"type_vocab_size": 2, "pad_token_id": 0}))
    return folder


def sentences(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    endings = ("", "", "s", "ing", "er")
    return [
        " ".join(draw.choice(WORDS) + draw.choice(endings) for _ in range(draw.randint(2, 9)))
        for _ in range(count)
    ]


def write_texts(folder: Path, documents: int = 12, each: int = 10) -> Path:
    """Two files of documents with an empty line between them."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = ["\n".join(sentences(each, number)) for number in range(documents)]
    half = documents // 2
    (folder / "b10.txt").write_text("\n\n".join(parts[half:]) + "\n")
    (folder / "b2.txt").write_text("\ufeff" + "\n\n\n".join(parts[:half]) + "\n")
    return folder


def bert_config(**changes: Any) -> Any:
    from transformers import BertConfig

    sizes = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
    }
    return BertConfig(vocab_size=len(VOCABULARY), **{**sizes, **changes})


def write_masked_lm(folder: Path, **changes: Any) -> Path:
    """A Hugging Face folder of a tiny BERT with a masked-LM head, and its tokenizer."""
    from transformers import BertForMaskedLM

    torch.manual_seed(3)
    write_tokenizer(folder)
    BertForMaskedLM(bert_config(**changes)).save_pretrained(folder)
    return folder


def exchange_tokens(folder: Path, one: str, other: str) -> None:
    """Two tokens of a folder's tokenizer have each other's numbers."""
    values = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = values["model"]["vocab"]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    (folder / "tokenizer.json").write_text(json.dumps(values))


def write_inverted_bert(folder: Path, **sizes: Any) -> Path:
    """The same of a MobileBERT."""
    from transformers import MobileBertConfig, MobileBertForMaskedLM

    torch.manual_seed(3)
    write_tokenizer(folder)
    MobileBertForMaskedLM(MobileBertConfig(**sizes)).save_pretrained(folder)
    return folder
