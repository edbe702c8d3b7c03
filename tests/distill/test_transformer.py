"""Where models keep their layers, embeddings and attention."""

from __future__ import annotations

import pytest
import torch
from small_transformers import bert, inputs
from torch import nn

import lianzhi as lz
from lianzhi.distill.transformer import attention_of, embeddings_of, layers_of
from lianzhi.errors import GraphError

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize(
    ("kind", "layer", "embeddings", "query"),
    [
        ("bert", "bert.encoder.layer.0", "bert.embeddings", "attention.self.query"),
        ("roberta", "roberta.encoder.layer.0", "roberta.embeddings", "attention.self.query"),
        ("distilbert", "distilbert.transformer.layer.0", "distilbert.embeddings", "attention.q_lin"),
        ("vit", "vit.layers.0", "vit.embeddings", "attention.q_proj"),
    ],
)
def test_names(kind, layer, embeddings, query):
    model = bert(3, kind=kind)
    assert layers_of(model) == [f"{layer[:-1]}{index}" for index in range(3)]
    assert embeddings_of(model) == embeddings
    found = attention_of(model, layer)
    assert (found.query, found.heads) == (f"{layer}.{query}", 4)
    assert found.scale == pytest.approx(8**-0.5)


def test_a_model_of_one_layer_and_one_without_a_head():
    model = bert(1)
    assert layers_of(model) == ["bert.encoder.layer.0"]
    assert layers_of(model.bert) == ["encoder.layer.0"]
    assert embeddings_of(model.bert) == "embeddings"


def test_lists_inside_of_blocks_are_not_the_layers():
    config = transformers.MobileBertConfig(
        **{"vocab_size": 30, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"intermediate_size": 24, "intra_bottleneck_size": 16, "embedding_size": 16},
    )
    model = transformers.MobileBertForSequenceClassification(config)
    assert layers_of(model) == ["mobilebert.encoder.layer.0", "mobilebert.encoder.layer.1"]
    assert attention_of(model, layers_of(model)[0])[3:] == (2, pytest.approx(8**-0.5))


def test_embeddings_that_are_projected():
    config = transformers.ElectraConfig(
        **{"vocab_size": 30, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"intermediate_size": 24, "embedding_size": 16},
    )
    assert embeddings_of(transformers.ElectraModel(config)) == "embeddings_project"


def test_layers_that_pruning_left():
    data = inputs()
    model = lz.prune.plan(bert(4), data, ratio=0.5, granularity="layers").apply()
    assert layers_of(model) == ["bert.encoder.layer.0", "bert.encoder.layer.1"]


def test_widths_that_pruning_left():
    model = lz.prune.plan(bert(2), inputs(), ratio=0.5, granularity="channel", scope="layer").apply()
    found = attention_of(model, layers_of(model)[0])
    assert model.get_submodule(found.query).out_features == found.heads * 8


def test_several_lists_are_told():
    config = transformers.T5Config(
        vocab_size=30, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    with pytest.raises(GraphError, match=r"2 lists of blocks \('encoder.block', 'decoder.block'\)"):
        layers_of(transformers.T5ForConditionalGeneration(config))


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))])
def test_no_list_of_blocks_is_told(model):
    with pytest.raises(GraphError, match="has no list of blocks of one class"):
        layers_of(model)


def test_attention_of_other_forms_is_refused():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 2, enable_nested_tensor=False)
    with pytest.raises(GraphError, match="no attention with queries, keys and values from a Linear"):
        attention_of(encoder, "layers.0")
    with pytest.raises(GraphError, match=r"no module 'layers\.5'; did you mean"):
        attention_of(encoder, "layers.5")
    rotary = transformers.LlamaModel(
        transformers.LlamaConfig(
            **{"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
            **{"intermediate_size": 16, "pad_token_id": 0},
        )
    )
    with pytest.raises(GraphError, match="rotary positions"):
        attention_of(rotary, "layers.0")


class Block(nn.Module):
    def __init__(self, **attributes):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(12, 12) for _ in range(3))
        for name, value in attributes.items():
            setattr(self, name, value)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "does not say its heads"),
        ({"head_dim": 5}, "heads of 5 in a width of 12"),
        ({"head_dim": 4, "key": nn.Linear(12, 4)}, "widths of 12, 4 and 12"),
        ({"head_dim": 4, "q_norm": nn.LayerNorm(4)}, "a norm 'q_norm'"),
        ({"head_dim": 4, "distance_embedding": nn.Embedding(3, 4)}, "positions of its own"),
    ],
)
def test_heads_that_cannot_be_known_are_told(attributes, message):
    with pytest.raises(GraphError, match=message):
        attention_of(nn.ModuleList([Block(**attributes)]), "0")


def test_heads_by_the_modules_own_attributes():
    model = nn.ModuleList(
        [Block(num_heads=3), Block(head_dim=2, num_heads=3), Block(head_size=6, scaling=0.5)]
    )
    found = [attention_of(model, str(index)) for index in range(3)]
    assert [item.heads for item in found] == [3, 6, 2]
    assert [item.scale for item in found] == [4**-0.5, 2**-0.5, 0.5]
    assert torch.is_tensor(model[0].query.weight)
