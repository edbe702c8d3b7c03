"""Small models of Hugging Face architectures with random weights, for the coverage benchmark and the tests.

Each entry makes ``(model, example_inputs)``. Sizes are small; what couples the channels is as in the large ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Made = tuple[nn.Module, Any]
ENTRIES: dict[str, Callable[[], Made]] = {}
TEXT = {
    "vocab_size": 96,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "intermediate_size": 64,
}
VISION = {"image_size": 32, "patch_size": 8, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 6,
          "intermediate_size": 64, "num_labels": 5}  # fmt: skip


def _entry(function: Callable[[], Made]) -> Callable[[], Made]:
    ENTRIES[function.__name__] = function
    return function


def tokens(length: int = 12) -> dict[str, torch.Tensor]:
    """Token ids with a padded end, as a tokenizer gives them."""
    ids = torch.randint(5, 96, (1, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[:, -2:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def image(size: int = 32) -> torch.Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


@_entry
def bert() -> Made:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(**TEXT, num_labels=3)), tokens()


@_entry
def roberta() -> Made:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    return RobertaForSequenceClassification(
        RobertaConfig(**TEXT, num_labels=3, max_position_embeddings=40)
    ), tokens()


@_entry
def electra() -> Made:
    from transformers import ElectraConfig, ElectraForSequenceClassification

    return ElectraForSequenceClassification(ElectraConfig(**TEXT, embedding_size=24, num_labels=3)), tokens()


@_entry
def distilbert() -> Made:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(vocab_size=96, dim=48, n_layers=2, n_heads=6, hidden_dim=64, num_labels=3)
    return DistilBertForSequenceClassification(config), tokens()


@_entry
def mobilebert() -> Made:
    from transformers import MobileBertConfig, MobileBertForSequenceClassification

    config = MobileBertConfig(
        vocab_size=96, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        embedding_size=24, intra_bottleneck_size=32, num_labels=3,
    )  # fmt: skip
    return MobileBertForSequenceClassification(config), tokens()


@_entry
def albert() -> Made:
    from transformers import AlbertConfig, AlbertForSequenceClassification

    return AlbertForSequenceClassification(AlbertConfig(**TEXT, embedding_size=24, num_labels=3)), tokens()


@_entry
def vit() -> Made:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(**VISION)), image()


@_entry
def deit() -> Made:
    from transformers import DeiTConfig, DeiTForImageClassification

    return DeiTForImageClassification(DeiTConfig(**VISION)), image()


@_entry
def swin() -> Made:
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(
        image_size=32,
        patch_size=2,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
        num_labels=5,
    )
    return SwinForImageClassification(config), image()


@_entry
def convnext() -> Made:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], num_labels=5)
    return ConvNextForImageClassification(config), image(64)


@_entry
def convnextv2() -> Made:
    from transformers import ConvNextV2Config, ConvNextV2ForImageClassification

    config = ConvNextV2Config(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], num_labels=5)
    return ConvNextV2ForImageClassification(config), image(64)


@_entry
def mobilenetv2() -> Made:
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    config = MobileNetV2Config(image_size=64, depth_multiplier=0.35, num_labels=5)
    return MobileNetV2ForImageClassification(config), image(64)


@_entry
def gpt2() -> Made:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=96, n_positions=32, n_embd=48, n_layer=2, n_head=6, use_cache=False)
    return GPT2LMHeadModel(config), tokens()


@_entry
def llama() -> Made:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**TEXT, num_key_value_heads=3, use_cache=False, tie_word_embeddings=True)
    return LlamaForCausalLM(config), tokens()


@_entry
def qwen2() -> Made:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(**TEXT, num_key_value_heads=2, use_cache=False)
    return Qwen2ForCausalLM(config), tokens()


@_entry
def llama_classifier() -> Made:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig(**TEXT, num_key_value_heads=6, use_cache=False, num_labels=3, pad_token_id=0)
    return LlamaForSequenceClassification(config), tokens()


@_entry
def t5_encoder() -> Made:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=96, d_model=48, d_kv=8, d_ff=64, num_layers=2, num_heads=6, use_cache=False)
    return T5EncoderModel(config), tokens()


class Hidden(nn.Module):
    """A backbone with a linear head on the mean of its hidden states, so that its own width is no output."""

    def __init__(self, backbone: nn.Module, width: int, **options: Any) -> None:
        super().__init__()
        self.backbone, self.head, self.options = backbone, nn.Linear(width, 5), options

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(inputs, **self.options).last_hidden_state.mean(1))


@_entry
def whisper_encoder() -> Made:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=48, encoder_layers=2, encoder_attention_heads=6, encoder_ffn_dim=64, num_mel_bins=16, max_source_positions=20,
        vocab_size=96, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    return Hidden(WhisperEncoder(config), 48), torch.randn(1, 16, 40)


@_entry
def mobilevit() -> Made:
    from transformers import MobileViTConfig, MobileViTForImageClassification

    config = MobileViTConfig(
        image_size=64, hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 12, 16, 16, 20, 48], num_labels=5
    )
    return MobileViTForImageClassification(config), image(64)


@_entry
def segformer() -> Made:
    from transformers import SegformerConfig, SegformerForImageClassification

    config = SegformerConfig(
        hidden_sizes=[8, 16, 32, 48], num_attention_heads=[1, 2, 4, 6], depths=[1, 1, 1, 1],
        decoder_hidden_size=24, num_labels=5,
    )  # fmt: skip
    return SegformerForImageClassification(config), image(64)


@_entry
def regnet() -> Made:
    from transformers import RegNetConfig, RegNetForImageClassification

    config = RegNetConfig(
        embedding_size=8,
        hidden_sizes=[16, 24, 32, 48],
        depths=[1, 1, 2, 1],
        groups_width=8,
        layer_type="y",
        num_labels=5,
    )
    return RegNetForImageClassification(config), image(64)


@_entry
def resnet() -> Made:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=8, hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 2, 1], num_labels=5)
    return ResNetForImageClassification(config), image(64)
