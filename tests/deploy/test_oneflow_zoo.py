"""OneFlow source of every model of the zoo, of classifiers of transformers, pruned ones too; by PyTorch in OneFlow's place."""

from __future__ import annotations

import pytest
import torch
from oneflow_as_torch import assert_same, run_as_torch, written
from oneflow_cases import filled
from torch import Tensor, nn

import lianzhi as lz
from lianzhi import models
from lianzhi.models.options import ModelConfig

CNNS = [name for name in models.registry.names() if issubclass(models.registry.get(name).config, ModelConfig)]
IMAGENET = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "mobilenet_v2",
    "efficientnet_lite0",
)
SMALL = {
    "alexnet": {"image_size": 63, "hidden": (16, 16)},
    "alexnet_cifar": {"hidden": (16, 16)},
    "inception_v3": {"image_size": 75},
    "vgg16_bn": {"image_size": 32, "hidden": (16,)},
    **{name: {"image_size": 32} for name in IMAGENET},
}
QUICK = {
    "lenet5",
    "lenet_300_100",
    "resnet20",
    "resnet18",
    "mobilenet_v2",
    "efficientnet_lite0",
    "alexnet_cifar",
}
BERT = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
TEXT = {
    "bert": {"model_type": "bert", **BERT},
    "mobilebert": {"model_type": "mobilebert", **BERT, "embedding_size": 16, "intra_bottleneck_size": 16},
    "distilbert": {
        **{
            "model_type": "distilbert",
            "vocab_size": 50,
            "dim": 16,
            "hidden_dim": 32,
            "n_layers": 2,
            "n_heads": 2,
        },
        "max_position_embeddings": 40,
    },
    "electra": {"model_type": "electra", **BERT, "embedding_size": 16},
    "albert": {"model_type": "albert", **BERT, "embedding_size": 16},
    "roberta": {"model_type": "roberta", **BERT},
}


def tokens(batch: int, length: int, *, segments: bool = True) -> dict[str, Tensor]:
    """Texts of several lengths, padded."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(batch, length, dtype=torch.long)
    for row in range(batch):
        mask[row, length - 2 * row :] = 0 if row else 1
    made = {
        "input_ids": torch.randint(1, 30, (batch, length), generator=generator) * mask,
        "attention_mask": mask,
    }
    half = torch.arange(length).ge(length // 2).long()
    return made | ({"token_type_ids": half * mask} if segments else {})


def sometimes(names, quick):
    """All names, those that are not quick marked as slow."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", sometimes(CNNS, QUICK))
def test_images(name):
    model = filled(models.model(name, num_classes=10, **SMALL.get(name, {})))
    images = torch.randn(2, *models.input_shape(model), generator=torch.Generator().manual_seed(0))
    copied = run_as_torch(written(model, images))
    assert {*copied.state_dict()} == {*model.state_dict()}
    with torch.no_grad():
        expected = model(images)
        assert_same(copied(images) / expected.abs().max(), expected / expected.abs().max())


@pytest.mark.parametrize("kind", sometimes(TEXT, {"bert", "mobilebert"}))
def test_texts_of_any_number_and_length(kind):
    model = filled(lz.model("huggingface", config=TEXT[kind]))
    copied = run_as_torch(written(model, tokens(1, 6, segments=kind not in ("distilbert", "roberta"))))
    for batch, length in ((3, 9), (1, 4)):
        inputs = tokens(batch, length, segments=kind not in ("distilbert", "roberta"))
        with torch.no_grad():
            assert_same(copied(**inputs)["logits"], model(**inputs)["logits"])


@pytest.mark.parametrize("pairs", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_bilstm(pairs):
    model = filled(lz.model("bilstm", vocabulary=30, width=8, hidden=6, linear=5, pairs=pairs))
    copied = run_as_torch(written(model, tokens(1, 6, segments=pairs)))
    with torch.no_grad():
        inputs = tokens(3, 9, segments=pairs)
        assert_same(copied(**inputs)["logits"], model(**inputs)["logits"])


def test_widths_after_pruning_come_from_the_graph():
    images = torch.randn(2, 3, 32, 32)
    model = filled(models.model("resnet20", num_classes=10))
    pruned = lz.prune.plan(model, images[:1], ratio=0.5).apply().eval()
    source = written(pruned, images)
    width = pruned.get_parameter("layer1.0.conv1.weight").shape
    assert tuple(width) < (16, 16, 3, 3)
    assert f"'layer1.0.conv1.weight': {tuple(width)}," in source.text.replace('"', "'")
    assert_same(run_as_torch(source)(images), pruned(images))


@pytest.mark.parametrize("granularity", sometimes(["heads", "ffn", "hidden", "layers"], {"hidden"}))
def test_a_transformer_that_was_made_smaller(granularity):
    model = filled(lz.model("huggingface", config=TEXT["bert"]))
    smaller = lz.prune.plan(model, tokens(1, 6), ratio=0.5, granularity=granularity).apply().eval()
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        expected = smaller(**tokens(3, 9))
        assert_same(
            run_as_torch(written(smaller, tokens(1, 6)))(**tokens(3, 9))["logits"], expected["logits"]
        )


def test_a_vision_transformer():
    pytest.importorskip("transformers")
    from transformers import ViTConfig, ViTForImageClassification

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = {
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 32,
            }
            self.vit = ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=8))

        def forward(self, images: Tensor) -> Tensor:
            return self.vit(images).logits

    model, images = filled(Logits()), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert_same(run_as_torch(written(model, images))(images), model(images))
