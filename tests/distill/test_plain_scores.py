"""Models whose attention is not softmax(q · kᵀ) · v are told from those whose is."""

import pytest
import torch
import transformers
from lessons import setting, taught

import lianzhi as lz
from lianzhi.distill.transformer import layers_of
from lianzhi.errors import DataError, GraphError

SIZES = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_labels": 2,
}
SMALL = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 30}
MOBILE = {"embedding_size": 16, "intra_bottleneck_size": 16}
DECODER = {"ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": 32}
LONG = {"attention_window": 4, "max_position_embeddings": 40}


def made(kind, **changes):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, "pad_token_id": 0, **changes})
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.5)
    return model


def inputs():
    ids = torch.arange(3, 19).view(2, 8)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize(
    ("kind", "changes", "plain"),
    [
        ("bert", {}, True),
        ("roberta", {}, True),
        ("electra", {"embedding_size": 16}, True),
        ("distilbert", SMALL, True),
        ("mobilebert", MOBILE, True),
        ("mpnet", {}, False),
        ("roformer", {"embedding_size": 16}, False),
        ("opt", DECODER, False),
        ("longformer", LONG, False),
    ],
)
def test_of_models_of_the_library(kind, changes, plain):
    model, given = made(kind, **changes), inputs()
    layers = layers_of(model)
    if plain:
        lz.distill.require_plain_scores(model, layers, given, given["attention_mask"])
        return
    with pytest.raises(GraphError, match=rf"'{layers[0]}' does not attend by the plain product"):
        lz.distill.require_plain_scores(model, layers, given, given["attention_mask"])


@pytest.mark.parametrize(
    ("method", "options", "refused"),
    [
        ("tinybert", {"projection": "none"}, True),
        ("tinybert", {"projection": "none", "attention": 0}, False),
        ("minilm", {"version": 1}, True),
        ("minilm", {"version": 2}, False),
    ],
)
def test_methods_refuse_scores_that_are_not_known(method, options, refused):
    given = setting()
    given.teacher, given.student = made("mpnet"), made("mpnet")
    if not refused:
        assert taught(given, method, **options).stages
        return
    with pytest.raises(GraphError, match="plain product"):
        taught(given, method, **options)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_teacher_in_half_precision_attends_by_the_plain_product(kind):
    teacher, given = made("bert").to(kind), inputs()
    lz.distill.require_plain_scores(teacher, layers_of(teacher), given, given["attention_mask"])
    other = made("mpnet").to(kind)
    with pytest.raises(GraphError, match="plain product"):
        lz.distill.require_plain_scores(other, layers_of(other), given, given["attention_mask"])


def test_layers_of_two_precisions_do_not_run_one_after_another():
    given = setting()
    given.teacher = given.teacher.to(torch.bfloat16)
    with pytest.raises(DataError, match=r"the student is torch\.float32, the teacher torch\.bfloat16; call"):
        taught(given, "theseus", compress_ratio=2)
