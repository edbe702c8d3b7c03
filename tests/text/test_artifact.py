"""A text model's folder: the same model back, its tokenizer inside, and what is crafted refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_text import SIZES, tokens

import lianzhi as lz
from lianzhi import artifact, cli, deploy, files, jobs
from lianzhi.artifact.layout import own_digest
from lianzhi.distill.lengths import fitted
from lianzhi.errors import ArtifactError, DataError
from lianzhi.tasks import TextPreprocess

RUN = """
import sys, runpy
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "lianzhi", "onnx", "transformers"):
            raise ImportError(name + " is not to be needed")
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SENTENCES = ["a very good film", "Dull and empty", "never"]


@pytest.fixture(scope="module")
def whole(bert, tmp_path_factory) -> Path:
    """An artifact with its ONNX file."""
    torch.manual_seed(0)
    model = lz.model("huggingface", path=str(bert), num_classes=2).eval()
    with torch.no_grad():
        model.classifier.weight *= 50
    preprocess = TextPreprocess.open(str(bert), max_length=16)
    folder = artifact.save(
        model,
        tmp_path_factory.mktemp("text") / "a",
        example_inputs=tokens(1, 7),
        preprocess=preprocess,
        labels=["negative", "positive"],
        tokenizer=preprocess.members,
    )
    deploy.export_onnx(model, tokens(1, 7), folder / "model.onnx")
    return folder


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "a"))


def change(folder: Path, edit) -> None:
    path = folder / "architecture.json"
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps({**data, "digest": own_digest(data)}))


def test_it_is_the_same_model(whole, bert):
    data = files.read_json(whole / "architecture.json")
    assert (data["kind"], data["difference"], data["zoo"]["name"]) == ("zoo", 0.0, "huggingface")
    assert str(bert) not in (whole / "architecture.json").read_text()
    model = lz.load(whole)
    assert type(model).__name__ == "BertForSequenceClassification"
    session = deploy.load(whole, runtime="onnxruntime")
    for shape in ((1, 1), (1, 12), (3, 5)):
        inputs = tokens(*shape)
        with torch.no_grad():
            assert torch.allclose(model(**inputs).logits, session(inputs), atol=1e-4)
    again = artifact.save(model, whole.parent / "again", example_inputs=tokens(1, 7))
    assert (
        files.read_tensors(again / "model.safetensors").keys()
        == files.read_tensors(whole / "model.safetensors").keys()
    )
    loss = model.train()(**tokens(2, 5)).logits.square().sum()
    loss.backward()
    assert model.bert.embeddings.word_embeddings.weight.grad.abs().sum() > 0


def test_example_inputs_hide_nothing(whole):
    inputs = artifact.example_inputs(whole)
    assert inputs["attention_mask"].tolist() == [[1] * 7]
    assert inputs["input_ids"].dtype == torch.int64


def test_the_tokenizer_comes_along(whole, bert):
    found = TextPreprocess.load(whole)
    given = TextPreprocess.open(str(bert), max_length=16)
    assert found.to_dict() == given.to_dict()
    assert sorted(file.name for file in (whole / "tokenizer").iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    again = TextPreprocess.open(str(whole), max_length=16)
    assert (again.to_dict(), again.digest()) == (given.to_dict(), given.digest())
    assert found("a good film")["input_ids"].tolist() == given("a good film")["input_ids"].tolist()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_predict_and_its_script_say_the_same(folder, runtime):
    pytest.importorskip(runtime)
    script = artifact.write_predict(folder, runtime=runtime)
    done = subprocess.run(
        [sys.executable, "-I", "-c", RUN, str(script), *SENTENCES],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder.parent,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    model = lz.load(folder)
    found = jobs.predict(folder, SENTENCES, runtime=runtime, precision="f32")
    eager = jobs.predict(folder, SENTENCES, runtime="pytorch")
    preprocess = TextPreprocess.load(folder)
    for place, text in enumerate(SENTENCES):
        inputs = {name: torch.from_numpy(value) for name, value in preprocess(text).items()}
        with torch.no_grad():
            expected = model(**inputs).logits.softmax(1)[0]
        for result in (found, eager):
            for line in result[place]["classes"]:
                assert line["name"] == ("negative", "positive")[line["index"]]
                assert line["probability"] == pytest.approx(float(expected[line["index"]]), abs=1e-4)
        own = lines[2 * place : 2 * place + 2]
        assert [line[0] for line in own] == [text, text]
        assert own[0][1] == found[place]["classes"][0]["name"]
        assert float(own[0][2]) == pytest.approx(float(expected.max()), abs=2e-4)
    assert (
        "predict.py"
        in subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False).stderr
    )


def test_a_sentence_longer_than_the_limit_is_cut_and_said_to_be(folder, capsys):
    long = "a good film " * 6  # 18 words; with [CLS] and [SEP] 16 tokens are read
    found = jobs.predict(folder, [long, "a good film"], runtime="onnxruntime", precision="f32")
    (same,) = jobs.predict(folder, ["a good film " * 4 + "a good"], runtime="onnxruntime", precision="f32")
    assert [item.get("cut") for item in [*found, same]] == [16, None, None]
    assert found[0]["classes"] == same["classes"]
    assert cli.main(["predict", str(folder), long, "--runtime", "onnxruntime"]) == 0
    assert "the first 16 tokens were read" in capsys.readouterr().out
    script = artifact.write_predict(folder, runtime="onnxruntime")
    done = subprocess.run(
        [sys.executable, "-I", "-c", RUN, str(script), long, "a good film"],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder.parent,
    )
    assert done.stderr.count("cut to 16 tokens") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [(b"caf\xe9", "is not UTF-8 text: give it in UTF-8"), (" ", "is empty: give words, in quotes")],
)
def test_the_script_says_what_is_no_sentence(folder, text, said):
    script = artifact.write_predict(folder, runtime="onnxruntime")
    command = [sys.executable, "-I", str(script), "a good film", text]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"sentence 2 {said}\n"


@pytest.mark.parametrize(("positions", "kept"), [(64, 64), (200, 128), (None, 128)])
def test_texts_are_not_longer_than_the_positions_that_a_model_has(glue, bert, positions, kept):
    """All texts of a task may be short; the next one may not be."""
    task = lz.task("sst2", data=str(glue), tokenizer=str(bert), max_length=128)
    model = lz.model(
        "huggingface", config={**SIZES, "max_position_embeddings": positions or 64}, num_classes=2
    )
    if positions is None:
        del model.config.max_position_embeddings  # nothing is known, and nothing is tried
    found = fitted(task, model.eval())
    assert found.max_length == kept
    if positions:
        inputs = {name: torch.from_numpy(value) for name, value in found("a good film " * 99).items()}
        assert model(**inputs).logits.isfinite().all()


def test_of_a_task_that_has_no_texts_of_its_own_the_limit_stays(bert):
    preprocess = TextPreprocess.open(str(bert), max_length=128)
    batches = [(tokens(2, 7), torch.tensor([0, 1]))]
    task = lz.Task(train=batches, validation=batches, num_classes=2, preprocess=preprocess)
    model = lz.model("huggingface", config=SIZES, num_classes=2)
    assert fitted(task, model) == preprocess


def test_an_empty_sentence_is_refused(whole):
    with pytest.raises(lz.DataError, match="a sentence is empty"):
        jobs.predict(whole, [" "], runtime="onnxruntime")


@pytest.mark.parametrize("text", ["", "garbage", "{}", '{"model": 3}'])
def test_a_damaged_tokenizer(folder, text):
    (folder / "tokenizer" / "tokenizer.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"the description of its texts is damaged.*tokenizer"):
        jobs.predict(folder, ["x"], runtime="onnxruntime")
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is missing"):
        jobs.predict(folder, ["x"], runtime="onnxruntime")


@pytest.mark.parametrize(
    "changes",
    [
        {"max_length": "8"},
        {"max_length": 1 << 40},
        {"max_length": -1},
        {"inputs": ["input_ids", "__class__"]},
        {"inputs": "input_ids"},
        {"pad_id": -1},
        {"pad_id": None},
        {"more": 1},
    ],
)
def test_a_damaged_description(folder, changes):
    values = files.read_json(folder / "preprocess.json")
    files.write_json(folder / "preprocess.json", {**values, **changes})
    with pytest.raises(ArtifactError, match="the description of its texts is damaged"):
        jobs.predict(folder, ["x"], runtime="onnxruntime")


def test_links_and_pickles_in_the_tokenizers_folder(folder):
    import pickle

    inside = folder / "tokenizer"
    (inside / "vocab.txt").symlink_to("/etc/passwd")
    with pytest.raises(ArtifactError, match="is a link"):
        lz.load(folder)
    (inside / "vocab.txt").unlink()
    (inside / "spiece.model").write_bytes(pickle.dumps({}, protocol=4))
    with pytest.raises(ArtifactError, match="run code"):
        lz.load(folder)
    shutil.rmtree(inside)
    inside.symlink_to("/tmp")
    with pytest.raises(ArtifactError, match="is a link"):
        lz.load(folder)


HOSTILE = [
    ("auto_map", {"AutoConfig": "evil.Own"}),
    ("trust_remote_code", True),
    ("_attn_implementation", "kernels-community/evil"),
    ("attn_implementation", "kernels-community/evil"),
    ("_name_or_path", "/etc"),
    ("quantization_config", {"quant_method": "evil"}),
    ("torch_dtype", "float64"),
    ("unheard_of", 1),
    ("model_type", "evil"),
    ("model_type", None),
    ("vocab_size", 1 << 40),
    ("hidden_size", 1 << 23),
    ("intermediate_size", 1 << 25),
    ("num_hidden_layers", 1 << 20),
    ("num_hidden_layers", 900),
    ("num_attention_heads", 0),
    ("num_attention_heads", -4),
    ("layer_norm_eps", "x" * 1000),
    ("hidden_act", "__import__('os')"),
    ("hidden_act", {"a": {"b": {"c": {"d": {"e": 1}}}}}),
    ("pad_token_id", list(range(100_000))),
]


@pytest.mark.parametrize(
    ("key", "value"), HOSTILE, ids=[f"{key}-{str(value)[:20]}" for key, value in HOSTILE]
)
def test_a_crafted_config(folder, key, value):
    change(folder, lambda data: data["zoo"]["config"]["config"].update({key: value}))
    with pytest.raises(ArtifactError) as caught:
        lz.load(folder)
    assert len(str(caught.value)) < 900


@pytest.mark.parametrize(
    "config",
    [
        {"path": "/etc"},
        {"path": "someone/model"},
        {"num_classes": 1 << 30},
        {"num_classes": None},
        {"num_classes": True},
        {"config": None},
        {"config": []},
        {"weights": "x.pt"},
    ],
)
def test_a_crafted_entry(folder, config):
    change(folder, lambda data: data["zoo"]["config"].update(config))
    with pytest.raises(ArtifactError, match="no saved model has"):
        lz.load(folder)


def test_other_weights_than_the_config_says(folder):
    change(folder, lambda data: data["zoo"]["config"]["config"].update(num_hidden_layers=1))
    with pytest.raises(ArtifactError, match="the weights are not those of 'huggingface'"):
        lz.load(folder)


def test_without_the_library_it_says_so(folder, monkeypatch):
    import importlib.util

    plain = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "transformers" else plain(name, *rest),
    )
    with pytest.raises(
        ArtifactError, match=r"transformers, which is not installed; run: pip install 'lianzhi\[text\]'$"
    ):
        lz.load(folder)


def test_a_shortened_model_is_saved_by_its_config(bert, tmp_path):
    """Not as a graph, which would take texts of one length only."""
    from lianzhi.graph.shorten import shortened

    model = shortened(lz.model("huggingface", path=str(bert), num_classes=2), ["bert.encoder.layer.0"]).eval()
    artifact.save(model, tmp_path / "a", example_inputs=tokens(1, 6))
    assert json.loads((tmp_path / "a" / "architecture.json").read_text())["kind"] == "zoo"
    found = lz.load(tmp_path / "a")
    assert found.config.num_hidden_layers == len(found.bert.encoder.layer) == 1
    other = tokens(3, 9)
    assert torch.equal(found(**other).logits, model(**other).logits)


def test_evaluate_cuts_texts_where_predict_does(whole, tmp_path):
    """The model was saved with 16 tokens and has 64 positions; a text task's own default is 128."""
    texts = [f"{word} " + "film " * 100 for word in ("good", "bad", "never", "warm", "the", "stale")]
    said = [item["classes"][0]["name"] for item in jobs.predict(whole, texts)]
    rows = "".join(f"{text}\t{label}\n" for text, label in zip(texts, said, strict=True))
    (tmp_path / "test.tsv").write_text("text\tlabel\n" + rows)
    options = {"labels": ["negative", "positive"]}
    found = jobs.evaluate(whole, task="text", data=str(tmp_path), options=options, progress=False)
    assert (found["value"], found["samples"]) == (1.0, 6)


def test_a_model_of_single_texts_is_not_evaluated_on_pairs(whole, tmp_path):
    (tmp_path / "test.tsv").write_text("text\ttext2\tlabel\ngood\ta film\tpositive\nbad\ta plot\tnegative\n")
    given = {"labels": ["negative", "positive"]}
    with pytest.raises(DataError, match=r"was trained on single ones, and .* has pairs of texts"):
        jobs.evaluate(
            whole,
            task="text",
            data=str(tmp_path),
            options={**given, "text": "text", "second": "text2"},
            progress=False,
        )
    found = jobs.evaluate(whole, task="text", data=str(tmp_path), options=given, progress=False)
    assert found["samples"] == 2


def test_a_sentence_in_another_encoding_is_refused(whole):
    with pytest.raises(DataError, match=r"'caf\\udce9' is not UTF-8 text"):
        jobs.predict(whole, ["good", os.fsdecode("caf\u00e9".encode("latin-1"))])
