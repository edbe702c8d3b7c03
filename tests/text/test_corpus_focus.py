"""A masked LM is trained with its head on the tokens that are asked for: the same loss, the same gradients, less work."""

from __future__ import annotations

import contextlib

import pytest
import torch
import transformers
from tiny_corpus import VOCABULARY, bert_config, write_texts, write_tokenizer
from torch import nn

import lianzhi as lz
from lianzhi.errors import RecipeError
from lianzhi.tasks.corpus.focus import asked_only
from lianzhi.train import TrainOptions, default_step

SIZES = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
MODELS = {
    "BertForMaskedLM": bert_config,
    "BertForPreTraining": bert_config,
    "RobertaForMaskedLM": lambda: transformers.RobertaConfig(**SIZES),
    "ElectraForMaskedLM": lambda: transformers.ElectraConfig(**SIZES, embedding_size=16),
    "AlbertForMaskedLM": lambda: transformers.AlbertConfig(**SIZES, embedding_size=16),
    "DistilBertForMaskedLM": lambda: transformers.DistilBertConfig(
        vocab_size=len(VOCABULARY), dim=24, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=64
    ),
    "MobileBertForMaskedLM": lambda: transformers.MobileBertConfig(
        **SIZES, embedding_size=16, intra_bottleneck_size=16
    ),
}


def task_of(tmp_path, **options):
    place = write_tokenizer(tmp_path / "model")
    return lz.task(
        "corpus", data=write_texts(tmp_path / "texts"), tokenizer=str(place), max_length=32, **options
    )


def learned(model, task, batch):
    """The loss of a batch, and the gradient of each parameter that has one."""
    model.zero_grad()
    loss = default_step(task, TrainOptions(epochs=1, batch_size=8))(model, batch)["loss"]
    loss.backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return loss.detach(), {name: value.clone() for name, value in gradients.items()}


def rows_of(name, model, task, batch):
    """How many rows the layer called `name` is given, as its inputs' shapes."""
    shapes = []
    handle = model.get_submodule(name).register_forward_hook(
        lambda _module, inputs, _found: shapes.append(inputs[0].shape)
    )
    learned(model, task, batch)
    handle.remove()
    return shapes


@pytest.mark.parametrize("kind", MODELS)
def test_loss_and_gradients_are_those_of_all_tokens(kind, tmp_path):
    torch.manual_seed(0)
    model = getattr(transformers, kind)(MODELS[kind]()).eval()
    task = task_of(tmp_path, next_sentence=kind == "BertForPreTraining")
    batch = next(iter(task.batches("train", 8)))
    if kind in ("RobertaForMaskedLM", "DistilBertForMaskedLM"):
        batch.inputs.pop("token_type_ids")
    loss, gradients = learned(model, task, batch)
    assert not any(module._forward_hooks for module in model.modules())
    task.focus = lambda _model, _labels: contextlib.nullcontext()
    wanted, all_gradients = learned(model, task, batch)
    torch.testing.assert_close(loss, wanted)
    assert gradients.keys() == all_gradients.keys()
    for name, value in gradients.items():
        torch.testing.assert_close(value, all_gradients[name], atol=1e-6, rtol=1e-4, msg=name)


def test_the_head_sees_no_other_tokens(tmp_path):
    model, task = transformers.BertForMaskedLM(bert_config()), task_of(tmp_path)
    batch = next(iter(task.batches("train", 8)))
    asked = int((batch.labels != -100).sum())
    assert 0 < asked < batch.labels.numel() / 3
    assert rows_of("cls.predictions.decoder", model, task, batch) == [(1, asked, 24)]


def test_a_model_of_ones_own_runs_as_it_is(tmp_path):
    task = task_of(tmp_path)

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(len(VOCABULARY), 8)
            self.head = nn.Linear(8, len(VOCABULARY))

        def forward(self, input_ids, attention_mask, token_type_ids=None):
            return {"logits": self.head(self.embedding(input_ids))}

    batch = next(iter(task.batches("train", 8)))
    assert rows_of("head", Plain(), task, batch) == [(*batch.labels.shape, 8)]


def test_a_head_of_ones_own_that_looks_at_several_tokens(tmp_path):
    task = task_of(tmp_path)

    class Wide(nn.Module):
        def __init__(self, head):
            super().__init__()
            self.head, self.mix = head, nn.Conv1d(24, 24, 3, padding=1)

        def forward(self, hidden):
            return self.head(self.mix(hidden.transpose(1, 2)).transpose(1, 2))

    class Own(transformers.BertForMaskedLM):
        def __init__(self, config):
            super().__init__(config)
            self.cls = Wide(self.cls)

    batch = next(iter(task.batches("train", 8)))
    assert rows_of("cls", Own(bert_config()), task, batch) == [(*batch.labels.shape, 24)]


def test_the_hook_is_gone_after_an_error():
    model = transformers.BertForMaskedLM(bert_config())
    labels = torch.tensor([[-100, 3]])
    with pytest.raises(ValueError, match="input_ids or inputs_embeds"), asked_only(model, labels):
        model()
    assert not model.bert._forward_hooks
    with asked_only(model, torch.full((2, 3), -100)):
        assert not model.bert._forward_hooks


def test_labels_of_tokens_are_not_smoothed(tmp_path):
    with pytest.raises(RecipeError, match="asks for tokens"):
        default_step(task_of(tmp_path), TrainOptions(epochs=1, label_smoothing=0.1))
