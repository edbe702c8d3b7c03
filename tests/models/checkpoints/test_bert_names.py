"""A BERT's names from every kind of checkpoint: the model that is filled computes what the checkpoint's own code does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import erf

import lianzhi as lz
from lianzhi import models
from lianzhi.errors import ArtifactError
from lianzhi.models.checkpoints.bert_names import family_of, to_huggingface
from lianzhi.models.checkpoints.tensorflow import read_tensorflow

REAL = Path(__file__).parent / "data" / "tensorflow"
CHECKPOINT = REAL / "bert.ckpt"
SAID = dict(np.load(REAL / "bert.npz"))
LAYERS, HEADS, WIDTH = 2, 2, 8
CONFIG = {
    "model_type": "bert",
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 12,
    "vocab_size": 20,
    "max_position_embeddings": 10,
}


def bert(weights=None, **config):
    return lz.model("huggingface", config={**CONFIG, **config}, num_classes=3, weights=weights).eval()


def logits(model) -> np.ndarray:
    inputs = {name: torch.from_numpy(value) for name, value in SAID.items() if name != "logits"}
    with torch.no_grad():
        return model(**inputs).logits.numpy()


def test_tensorflows_own_forward_pass():
    np.testing.assert_allclose(logits(bert(CHECKPOINT)), SAID["logits"], atol=1e-5)


def test_kernels_are_transposed_and_tables_and_output_weights_are_not():
    theirs = read_tensorflow(CHECKPOINT)
    ours = to_huggingface(theirs).tensors
    kernel = "bert/encoder/layer_1/intermediate/dense/kernel"
    assert torch.equal(ours["bert.encoder.layer.1.intermediate.dense.weight"], theirs[kernel].T)
    for new, old in {
        "bert.embeddings.word_embeddings.weight": "bert/embeddings/word_embeddings",
        "classifier.weight": "output_weights",
        "classifier.bias": "output_bias",
        "cls.predictions.bias": "cls/predictions/output_bias",
        "cls.seq_relationship.weight": "cls/seq_relationship/output_weights",
        "cls.predictions.transform.LayerNorm.weight": "cls/predictions/transform/LayerNorm/gamma",
        "bert.encoder.layer.0.output.LayerNorm.bias": "bert/encoder/layer_0/output/LayerNorm/beta",
    }.items():
        assert torch.equal(ours[new], theirs[old])
    assert all(tensor.is_contiguous() for tensor in ours.values())


def test_names_are_said():
    found = to_huggingface({**read_tensorflow(CHECKPOINT), "my/own": torch.zeros(1)})
    assert found.sources["classifier.weight"] == "output_weights"
    assert torch.equal(found.tensors["my/own"], torch.zeros(1))
    assert "my/own" not in found.sources


def lazy() -> dict[str, torch.Tensor]:
    """As OneFlow's lazy graphs name the same variables."""
    found = {}
    for name, tensor in read_tensorflow(CHECKPOINT).items():
        scope = "classification-" if name in ("output_weights", "output_bias") else ""
        found[scope + name.replace("/", "-").replace("kernel", "weight")] = tensor
    return found


def test_names_of_oneflows_lazy_graphs():
    assert family_of(lazy()) == "oneflow"
    one, other = to_huggingface(lazy()).tensors, to_huggingface(read_tensorflow(CHECKPOINT)).tensors
    weights = [name for name in other if "adam" not in name]
    assert len(weights) == 46
    assert all(torch.equal(one[name], other[name]) for name in weights)


@pytest.mark.parametrize("prefix", ["module.bert.", "bert.", ""])
@pytest.mark.parametrize("old", [True, False])
def test_pytorch_with_and_without_prefix(tmp_path, prefix, old):
    torch.manual_seed(0)
    model = bert()
    state = {}
    for name, tensor in model.state_dict().items():
        plain = name.removeprefix("bert.")
        if old:
            plain = plain.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            )
        state[(prefix if name.startswith("bert.") else prefix.removesuffix("bert.")) + plain] = tensor
    state[f"{prefix}embeddings.position_ids"] = torch.arange(10)[None]
    torch.save(state, tmp_path / "pytorch_model.bin")
    torch.manual_seed(1)
    np.testing.assert_array_equal(logits(bert(tmp_path / "pytorch_model.bin")), logits(model))


def libai() -> dict[str, np.ndarray]:
    """A random BERT of LiBai's names."""
    random = np.random.default_rng(3)

    def draw(*shape: int) -> np.ndarray:
        return random.normal(0, 0.5, shape).astype(np.float32)

    found = {
        "bert.embeddings.vocab_embeddings.weight": draw(20, WIDTH),
        "bert.embeddings.position_embeddings.weight": draw(10, WIDTH),
        "bert.embeddings.tokentype_embeddings.weight": draw(2, WIDTH),
    }
    norms = ["final_layernorm"]
    dense = {"pooler.dense": (WIDTH, WIDTH)}
    for layer in (f"encoders.{number}." for number in range(LAYERS)):
        norms += [f"{layer}input_layernorm", f"{layer}post_attention_layernorm"]
        dense |= {f"{layer}self_attention.query_key_value": (3 * WIDTH, WIDTH)}
        dense |= {f"{layer}self_attention.dense": (WIDTH, WIDTH)}
        dense |= {f"{layer}mlp.dense_h_to_4h": (12, WIDTH), f"{layer}mlp.dense_4h_to_h": (WIDTH, 12)}
    for name in norms:
        found |= {f"bert.{name}.weight": 1 + draw(WIDTH), f"bert.{name}.bias": draw(WIDTH)}
    for name, shape in dense.items():
        found |= {f"bert.{name}.weight": draw(*shape), f"bert.{name}.bias": draw(shape[0])}
    return found | {"classifier.weight": draw(3, WIDTH), "classifier.bias": draw(3)}


def libais_forward_pass(weights: dict[str, np.ndarray]) -> np.ndarray:
    """In NumPy, as LiBai computes it with `apply_residual_post_layernorm`: norms before the layers, fused attention."""

    def dense(name, value):
        return value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name, value):
        value = value - value.mean(-1, keepdims=True)
        value = value / np.sqrt((value**2).mean(-1, keepdims=True) + 1e-12)
        return value * weights[f"bert.{name}.weight"] + weights[f"bert.{name}.bias"]

    def softmax(value):
        value = np.exp(value - value.max(-1, keepdims=True))
        return value / value.sum(-1, keepdims=True)

    ids, mask = SAID["input_ids"], SAID["attention_mask"]
    table = "bert.embeddings.{}_embeddings.weight".format
    state = weights[table("vocab")][ids] + weights[table("tokentype")][SAID["token_type_ids"]]
    state = state + weights[table("position")][: ids.shape[1]]
    for layer in (f"encoders.{number}." for number in range(LAYERS)):
        state = norm(f"{layer}input_layernorm", state)
        fused = dense(f"bert.{layer}self_attention.query_key_value", state)
        fused = fused.reshape(*ids.shape, HEADS, 3 * WIDTH // HEADS).transpose(0, 2, 1, 3)
        query, key, value = np.split(fused, 3, -1)
        scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(WIDTH // HEADS)
        scores = np.where(mask[:, None, None, :] == 1, scores, -10000.0)
        context = (softmax(scores) @ value).transpose(0, 2, 1, 3).reshape(state.shape)
        state = state + dense(f"bert.{layer}self_attention.dense", context)
        state = norm(f"{layer}post_attention_layernorm", state)
        inner = dense(f"bert.{layer}mlp.dense_h_to_4h", state)
        inner = inner * 0.5 * (1 + erf(inner / np.sqrt(2)))
        state = state + dense(f"bert.{layer}mlp.dense_4h_to_h", inner)
    state = norm("final_layernorm", state)
    return dense("classifier", np.tanh(dense("bert.pooler.dense", state[:, 0])))


@pytest.mark.parametrize("prefix", ["bert.", "model.", ""])
def test_libais_own_forward_pass(tmp_path, prefix):
    weights = libai()
    state = {name.replace("bert.", prefix): torch.from_numpy(value) for name, value in weights.items()}
    torch.save(state, tmp_path / "libai.pt")
    model = bert(tmp_path / "libai.pt")
    np.testing.assert_allclose(logits(model), libais_forward_pass(weights), atol=1e-5)
    assert "apply_residual_post_layernorm=True" in models.remarks(model)[-1]


def test_rows_of_the_fused_weight_in_closed_form():
    """Of two heads of size 2: row 6 h + 2 j + i is row 2 h + i of query, key, value for j = 0, 1, 2."""
    name = "bert.encoders.0.self_attention.query_key_value."
    table = {"bert.embeddings.vocab_embeddings.weight": torch.zeros(1, 4)}
    rows = torch.arange(12.0)
    found = to_huggingface(
        {**table, f"{name}weight": rows[:, None].expand(12, 4), f"{name}bias": rows}, heads=2
    ).tensors
    wanted = {"query": [0, 1, 6, 7], "key": [2, 3, 8, 9], "value": [4, 5, 10, 11]}
    for part, expected in wanted.items():
        assert found[f"bert.encoder.layer.0.attention.self.{part}.bias"].tolist() == expected
        assert found[f"bert.encoder.layer.0.attention.self.{part}.weight"][:, 3].tolist() == expected


@pytest.mark.parametrize(
    ("heads", "message"), [(None, "how many attention heads"), (5, "of 5 heads"), (0, "of 0 heads")]
)
def test_the_number_of_heads_is_asked_for(heads, message):
    state = {name: torch.from_numpy(value) for name, value in libai().items()}
    with pytest.raises(ArtifactError, match=message):
        to_huggingface(state, heads=heads)


def test_two_tensors_of_one_name_are_refused():
    state = {**read_tensorflow(CHECKPOINT), "my/output_bias": torch.zeros(3)}
    with pytest.raises(
        ArtifactError, match=r"'output_bias' and 'my/output_bias' would both be 'classifier\.bias'"
    ):
        to_huggingface(state)


def test_odd_shapes_are_left_to_be_compared():
    state = {**read_tensorflow(CHECKPOINT), "bert/pooler/dense/kernel": torch.zeros(2, 2, 2)}
    assert to_huggingface(state).tensors["bert.pooler.dense.weight"].shape == (2, 2, 2)


def test_other_models_keep_their_names():
    assert to_huggingface({"fc.weight": torch.zeros(1)}) is None
    assert to_huggingface({"roberta.embeddings.word_embeddings.weight": torch.zeros(1)}) is None


def test_pretraining_has_no_classifier_and_that_is_said(tmp_path):
    state = {
        k: v for k, v in to_huggingface(read_tensorflow(CHECKPOINT)).tensors.items() if k[:10] != "classifier"
    }
    torch.save(state, tmp_path / "m.pt")
    said = models.remarks(bert(tmp_path / "m.pt"))
    assert "'classifier.bias', 'classifier.weight': newly initialised, since m.pt has no such weights" in said
    assert any("'cls.predictions.bias'" in line and "left out" in line for line in said)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"hidden_size": 12, "num_attention_heads": 3},
            r"'bert\.embeddings\.word_embeddings\.weight' is \[20, 8\] in the file and should be \[20, 12\]",
        ),
        ({"num_hidden_layers": 6}, "bert.ckpt: the file lacks .* the weights of another model"),
    ],
)
def test_another_body_is_refused(config, message):
    with pytest.raises(ArtifactError, match=message):
        bert(CHECKPOINT, **config)


def test_integers_are_no_weights(tmp_path):
    state = to_huggingface(read_tensorflow(CHECKPOINT)).tensors
    torch.save({**state, "classifier.bias": torch.zeros(3, dtype=torch.int64)}, tmp_path / "m.pt")
    with pytest.raises(
        ArtifactError, match=r"'classifier\.bias' is torch\.int64 and should be torch\.float32"
    ):
        bert(tmp_path / "m.pt")
