"""A masked LM whose tokens hold the space before a word, as RoBERTa's do: words in a sentence have candidates."""

from __future__ import annotations

import json

import pytest
import torch

from lianzhi.distill.augmentation.masked_lm import MaskedLM
from lianzhi.distill.augmentation.words import words_of

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
WORDS = ("a", "good", "bad", "film", "play", "the")
VOCABULARY = (*SPECIAL, *WORDS, *(f"Ġ{word}" for word in WORDS))
PADS = 1


@pytest.fixture
def folder(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from tokenizers.decoders import ByteLevel
    from transformers import RobertaConfig, RobertaForMaskedLM

    made = Tokenizer(
        models.WordLevel({token: place for place, token in enumerate(VOCABULARY)}, unk_token="<unk>")
    )
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made.decoder = ByteLevel()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    made.add_special_tokens(list(SPECIAL))
    made.save(str(tmp_path / "tokenizer.json"))
    told = {"mask_token": "<mask>", "pad_token": "<pad>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = RobertaConfig(vocab_size=len(VOCABULARY), max_position_embeddings=40, pad_token_id=PADS, **sizes)
    RobertaForMaskedLM(config).save_pretrained(tmp_path)
    return tmp_path


def test_a_word_is_the_token_that_it_is_in_a_sentence(folder):
    lm = MaskedLM(str(folder))
    assert lm.token_of("good") == VOCABULARY.index("Ġgood")
    assert lm.token_of("unheard") is None
    words = words_of("a good film")
    found = lm.candidates(["a good film"], [words], 3)[0]
    assert [word.text for word in words] == ["good", "film"]
    for word, candidates in zip(words, found, strict=True):
        assert len(candidates) == 3
        assert word.text not in candidates
        assert set(candidates) <= set(WORDS)
