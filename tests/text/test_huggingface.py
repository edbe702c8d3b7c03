"""Hugging Face classifiers: from folders and configs, what is new in them said, code and pickles refused."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import sys

import pytest
import torch
from tiny_text import SIZES, tokens, write_model

import lianzhi as lz
from lianzhi import models
from lianzhi.errors import ArtifactError, RecipeError, TargetError
from lianzhi.models.text import library

OTHERS = {
    "distilbert": {"vocab_size": 60, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    "roberta": {**SIZES, "model_type": "roberta", "pad_token_id": 1, "type_vocab_size": 1},
    "albert": {**SIZES, "embedding_size": 16},
    "electra": {**SIZES, "embedding_size": 16},
    "mobilebert": {**SIZES, "hidden_size": 64, "embedding_size": 32, "intra_bottleneck_size": 32},
}


def test_from_a_folder_without_a_head(bert):
    torch.manual_seed(0)
    model = lz.model("huggingface", path=str(bert), num_classes=3)
    weights = lz.files.read_tensors(bert / "model.safetensors")
    own = model.state_dict()
    assert all(torch.equal(own[f"bert.{name}"], value) for name, value in weights.items())
    assert model.training
    assert model(**tokens(2, 5)).logits.shape == (2, 3)
    assert models.remarks(model) == (
        f"'classifier.bias', 'classifier.weight': newly initialised, since {bert.name} has no such weights",
    )
    described = models.describe(model)
    assert described["config"]["path"] is None
    assert described["config"]["config"]["hidden_size"] == 32


def test_a_new_head_is_drawn_from_the_generator(bert):
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        heads.append(lz.model("huggingface", path=str(bert)).classifier.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_fewer_layers_take_the_first(bert):
    model = lz.model("huggingface", path=str(bert), config={"num_hidden_layers": 1})
    whole = lz.model("huggingface", path=str(bert))
    first = "bert.encoder.layer.0.output.dense.weight"
    assert torch.equal(model.state_dict()[first], whole.state_dict()[first])
    assert "and 12 more: left out, the model has no place for them" in models.remarks(model)[1]


def test_a_trained_classifier_keeps_its_head(tmp_path, bert):
    model = lz.model("huggingface", path=str(bert), num_classes=2)
    model.save_pretrained(tmp_path / "m")
    again = lz.model("huggingface", path=str(tmp_path / "m"))
    assert models.remarks(again) == ()
    assert torch.equal(again.classifier.weight, model.classifier.weight)
    other = lz.model("huggingface", path=str(tmp_path / "m"), num_classes=4)
    assert other.classifier.weight.shape == (4, 32)
    assert "newly initialised" in models.remarks(other)[0]


@pytest.mark.parametrize("kind", OTHERS)
def test_other_architectures_from_a_config(kind):
    config = {**OTHERS[kind], "model_type": kind}
    model = lz.model("huggingface", config=config, num_classes=2).eval()
    inputs = tokens(2, 6)
    if kind in ("distilbert", "roberta"):
        del inputs["token_type_ids"]
    logits = model(**inputs).logits
    assert logits.shape == (2, 2)
    described = models.describe(model)
    torch.manual_seed(0)
    again = models.model(described["name"], **json.loads(json.dumps(described["config"])))
    assert models.describe(again) == described
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(**inputs).logits, logits)


def test_the_registrys_default_asks_for_a_place():
    assert models.registry.get("huggingface").config().to_dict() == {
        "path": None,
        "num_classes": None,
        "config": {},
    }
    with pytest.raises(RecipeError, match=r"give path: a folder.*or config: \{model_type: bert"):
        lz.model("huggingface")
    with pytest.raises(RecipeError, match="takes no images"):
        models.input_shape(lz.model("huggingface", config=SIZES))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_size": 32}, "names no model_type"),
        ({"model_type": "brt"}, "'brt' is no architecture with a sequence classifier; did you mean 'bert'"),
        ({**SIZES, "num_attention_heads": 5}, "hidden size .* multiple of the number of attention"),
        ({**SIZES, "hidden_act": "no such"}, "cannot be made with this config"),
        ({**SIZES, "quantization_config": {"bits": 4}}, "'quantization_config', which is not supported"),
    ],
)
def test_a_wrong_config_is_explained(config, message):
    with pytest.raises(RecipeError, match=message):
        lz.model("huggingface", config=config)


def test_pickles_are_not_opened(tmp_path, bert):
    folder = tmp_path / "m"
    shutil.copytree(bert, folder)
    tensors = lz.files.read_tensors(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match=r"holds no model.safetensors \(pytorch_model.bin is a pickle"):
        lz.model("huggingface", path=str(folder))


def test_code_beside_a_model_is_not_run(tmp_path, bert):
    folder = tmp_path / "m"
    shutil.copytree(bert, folder)
    ran = tmp_path / "ran"
    (folder / "modeling_own.py").write_text(f"open({str(ran)!r}, 'w').write('x')\nclass Own: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "modeling_own.Own",
        "AutoModelForSequenceClassification": "modeling_own.Own",
    }
    (folder / "config.json").write_text(json.dumps(config))
    model = lz.model("huggingface", path=str(folder))
    assert type(model).__name__ == "BertForSequenceClassification"
    assert not ran.exists()
    assert "auto_map" not in models.describe(model)["config"]["config"]
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own"}))
    with pytest.raises(RecipeError, match="'own' is no architecture"):
        lz.model("huggingface", path=str(folder))


def test_weights_that_do_not_fit(tmp_path, bert):
    with pytest.raises(ArtifactError, match=r"is \[43, 32\] in the file and should be \[50, 32\]"):
        lz.model("huggingface", path=str(bert), config={"vocab_size": 50})
    folder = write_model(tmp_path / "m")
    lz.files.write_tensors(folder / "model.safetensors", {"other": torch.zeros(1)})
    with pytest.raises(ArtifactError, match="these are the weights of another model than a BertForSequence"):
        lz.model("huggingface", path=str(folder))
    (folder / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(ArtifactError, match="the weights cannot be read"):
        lz.model("huggingface", path=str(folder))
    (folder / "config.json").write_text("[]")
    with pytest.raises(ArtifactError, match="it holds no table"):
        lz.model("huggingface", path=str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(ArtifactError, match=r"has no config\.json"):
        lz.model("huggingface", path=str(folder))


def test_without_the_library(monkeypatch):
    plain = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "transformers" else plain(name, *rest),
    )
    with pytest.raises(
        TargetError, match=r"transformers, which is not installed; run: pip install 'lianzhi\[text\]'"
    ):
        lz.model("huggingface", config=SIZES)


def test_a_torchvision_of_another_build_is_named(tmp_path, monkeypatch):
    (tmp_path / "torchvision").mkdir()
    broken = "raise RuntimeError('operator torchvision::nms does not exist')\n"
    (tmp_path / "torchvision" / "__init__.py").write_text(broken)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    assert "nms does not exist" in library.broken_torchvision()

    def use():
        with library.explained():
            importlib.import_module("torchvision")

    with pytest.raises(
        TargetError, match=r"the installed torchvision .* does not match torch .*pip uninstall torchvision"
    ):
        use()


def test_other_failures_keep_their_own_error():
    def use():
        with library.explained():
            raise RuntimeError("of another kind")

    with pytest.raises(RuntimeError, match="of another kind"):
        use()
