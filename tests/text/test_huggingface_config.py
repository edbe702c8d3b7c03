"""The keys of a Hugging Face config: a user's are all read or refused, those of a file may be of other versions."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_text import SIZES, write_model

import lianzhi as lz
from lianzhi import graph
from lianzhi.errors import RecipeError

DISTIL = {"model_type": "distilbert", "vocab_size": 60, "hidden_dim": 64}


@pytest.mark.parametrize("key", ["num_hiden_layers", "hiden_size", "n_layers"])
def test_a_key_that_the_architecture_does_not_have(bert, key):
    hint = "" if key == "n_layers" else "; did you mean '" + key.replace("hiden", "hidden")
    with pytest.raises(RecipeError, match=f"config: 'bert' has no key '{key}'{hint}"):
        lz.model("huggingface", path=str(bert), config={key: 2})
    with pytest.raises(RecipeError, match=f"config: 'bert' has no key '{key}'{hint}"):
        lz.model("huggingface", config={**SIZES, key: 2})


def test_a_common_name_is_the_architectures_own(tmp_path):
    common = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = lz.model("huggingface", config={**DISTIL, **common}).config
    assert (config.dim, config.n_layers, config.n_heads) == (32, 1, 4)
    lz.model("huggingface", config={**DISTIL, **common}).save_pretrained(tmp_path)
    assert lz.model("huggingface", path=str(tmp_path), config={"num_hidden_layers": 0}).config.n_layers == 0
    with pytest.raises(RecipeError, match="'hidden_size' and 'dim' are the same of 'distilbert'; leave one"):
        lz.model("huggingface", config={**DISTIL, **common, "dim": 64})


def test_keys_that_are_said_elsewhere_pass(bert):
    config = {"num_labels": 3, "transformers_version": "4.30.0", "_name_or_path": "x", "use_cache": True}
    assert lz.model("huggingface", path=str(bert), config=config).config.num_labels == 3


def test_a_file_may_have_keys_of_other_versions(tmp_path):
    folder = write_model(tmp_path / "m")
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**known, "position_embedding_type": "absolute", "own": 1})
    )
    assert lz.model("huggingface", path=str(folder)).config.num_hidden_layers == 2


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40}


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "gpt2", "pad_token_id": 0, **SMALL},
        {"model_type": "llama", "pad_token_id": 0, "intermediate_size": 24, **SMALL},
        {"model_type": "xlnet", "d_inner": 24, "mem_len": 4, **SMALL},
    ],
    ids=lambda config: config["model_type"],
)
def test_a_decoder_gives_logits_alone_for_texts_of_any_length(config):
    """Keys and values for a next token are no outputs of a classifier, and what has them cannot be captured."""
    model = lz.model("huggingface", config=config, num_classes=3).eval()
    inputs = {"input_ids": torch.arange(1, 9)[None], "attention_mask": torch.ones(1, 8, dtype=torch.long)}
    captured = graph.capture(model, inputs, dynamic_length=True)
    assert captured.output_shape == (2, 3)
    longer = {"input_ids": torch.arange(1, 13)[None], "attention_mask": torch.ones(1, 12, dtype=torch.long)}
    with torch.no_grad():
        assert torch.allclose(captured.module(**longer)[0], model(**longer).logits, atol=1e-5)


def test_padding_that_has_no_embedding():
    with pytest.raises(
        RecipeError, match=r"'bert' cannot be made with this config .Padding_idx must be within"
    ):
        lz.model("huggingface", config={**SIZES, "pad_token_id": 10_000})
