"""Tiny models of the transformers library from configs, and inputs for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

TEXT = {"vocab_size": 30, "max_position_embeddings": 40}
SIZES = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
KINDS = ("bert", "roberta", "distilbert", "vit")


def bert(layers: int = 2, *, seed: int = 0, kind: str = "bert", **changes: Any) -> nn.Module:
    """A classifier in eval mode."""
    import transformers

    options: dict[str, Any] = {**SIZES, "num_hidden_layers": layers, "num_labels": 2}
    if kind == "vit":
        config: Any = transformers.ViTConfig(**{**options, "image_size": 12, "patch_size": 4, **changes})
        made: Any = transformers.ViTForImageClassification
    elif kind == "distilbert":
        sizes = {"dim": 32, "n_layers": layers, "n_heads": 4, "hidden_dim": 48, "num_labels": 2}
        config = transformers.DistilBertConfig(**{**sizes, **TEXT, **changes})
        made = transformers.DistilBertForSequenceClassification
    else:
        config = {"bert": transformers.BertConfig, "roberta": transformers.RobertaConfig}[kind](
            **{**options, **TEXT, **changes}
        )
        made = {
            "bert": transformers.BertForSequenceClassification,
            "roberta": transformers.RobertaForSequenceClassification,
        }[kind]
    torch.manual_seed(seed)
    model: nn.Module = made(config).eval()
    for parameter in model.parameters():  # as published they begin so small that all tokens attend alike
        parameter.data.mul_(4 if parameter.dim() == 2 else 1)
    return model


def inputs(kind: str = "bert", *, count: int = 3, tokens: int = 7, seed: int = 0) -> dict[str, torch.Tensor]:
    """A batch; of texts, the second is padded."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "vit":
        return {"pixel_values": torch.randn(count, 3, 12, 12, generator=generator)}
    mask = torch.ones(count, tokens, dtype=torch.long)
    mask[1:2, tokens // 2 :] = 0
    ids = torch.randint(3, 30, (count, tokens), generator=generator)
    return {"input_ids": ids * mask + (1 - mask), "attention_mask": mask}
