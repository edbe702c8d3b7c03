"""A recipe whose model is an artifact: its classes and its tokenizer are those of the task, or the run is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from own_tables import KNOWN
from tiny_text import WORDS, tokens, write_tokenizer

import lianzhi as lz
from lianzhi import artifact, cli, jobs
from lianzhi.pipeline.heads import with_new_head
from lianzhi.tasks import TextPreprocess


def save(bert: Path, folder: Path, labels: list[str] | None, classes: int = 2) -> Path:
    """A classifier with its tokenizer and the names of its classes."""
    torch.manual_seed(0)
    model = lz.model("huggingface", path=str(bert), num_classes=classes).eval()
    preprocess = TextPreprocess.open(str(bert), max_length=16)
    members = {"preprocess": preprocess, "tokenizer": preprocess.members, "labels": labels}
    return artifact.save(model, folder, example_inputs=tokens(1, 7), **members)


def tried(folder: Path, model: Path, task: dict, steps: list | None = None) -> int:
    """The exit code of a dry run."""
    lines = [f"{text}\t{'good' if label else 'bad'}" for text, label in KNOWN]
    (folder / "train.tsv").write_text("text\tlabel\n" + "\n".join(lines) + "\n")
    values = {
        "model": {"artifact": str(model)},
        "task": {"name": "text", "data": str(folder / "train.tsv"), "max_length": 16, **task},
        "target": "pytorch",
        "steps": steps or [{"distill": {"student": {"layers": 1}, "epochs": 1}}],
    }
    (folder / "r.yaml").write_text(yaml.safe_dump(values))
    return cli.main(["compress", str(folder / "r.yaml"), "-o", str(folder / "out"), "--dry-run"])


@pytest.mark.parametrize("labels", [["bad", "good"], None])
def test_the_same_classes_or_none_by_name(bert, tmp_path, labels):
    assert tried(tmp_path, save(bert, tmp_path / "m", labels), {}) == 0


@pytest.mark.parametrize(
    ("task", "labels", "said"),
    [
        ({}, ["good", "bad"], "/m calls class 0 'good', and the task 'bad'"),
        ({}, ["poor", "good"], "/m calls class 0 'poor', and the task 'bad'"),
        ({"labels": ["good", "bad"]}, ["bad", "good"], "/m calls class 0 'bad', and the task 'good'"),
        ({}, ["bad", "good", "so-so"], "/m has 3 classes by name, and the task 'text' 2"),
    ],
)
def test_other_classes(bert, tmp_path, capsys, task, labels, said):
    assert tried(tmp_path, save(bert, tmp_path / "m", labels, len(labels)), task) == 2
    assert said in capsys.readouterr().err


def test_more_classes_without_names(bert, tmp_path, capsys):
    assert tried(tmp_path, save(bert, tmp_path / "m", None, 3), {}) == 2
    assert "/m gives 3 outputs, and the task 'text' has 2 classes" in capsys.readouterr().err


def test_a_tokenizer_that_is_not_the_models(bert, tmp_path, capsys):
    """The same words with other numbers: nothing fails, and everything that is read is another text."""
    model = save(bert, tmp_path / "m", ["bad", "good"])
    same = write_tokenizer(tmp_path / "same")
    assert tried(tmp_path, model, {"tokenizer": str(same)}) == 0
    other = write_tokenizer(tmp_path / "other", (*WORDS[:4], *WORDS[:3:-1]))
    assert tried(tmp_path, model, {"tokenizer": str(other)}) == 2
    said = capsys.readouterr().err
    assert "the model" in said
    assert "/m reads other tokens than task 'text' gives it; set the task's tokenizer to" in said
    assert "or give a model of the task's tokenizer" in said


def test_a_model_of_scores(bert, tmp_path):
    """It has no classes to compare."""
    (tmp_path / "train.tsv").write_text(
        "text\tscore\n" + "".join(f"{text}\t{label / 2}\n" for text, label in KNOWN)
    )
    task = {"name": "text", "data": str(tmp_path / "train.tsv"), "score": True, "max_length": 16}
    values = {
        "model": {"artifact": str(save(bert, tmp_path / "m", None, 1))},
        "task": task,
        "target": "pytorch",
        "steps": [{"prune": {"ratio": 0.3}}],
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
    assert cli.main(["compress", str(tmp_path / "r.yaml"), "--dry-run"]) == 0


def test_a_new_head_begins_another_task(bert, tmp_path, capsys):
    """Three classes of before are no matter, and neither are their names."""
    model = save(bert, tmp_path / "m", ["poor", "good", "so-so"], 3)
    kd = {"method": "kd", "epochs": 0, "student": {"artifact": str(model), "head": "new"}}
    assert tried(tmp_path, model, {}, [{"distill": {**kd, "student": {"artifact": str(model)}}}]) == 2
    recipe = yaml.safe_load((tmp_path / "r.yaml").read_text())
    recipe["model"]["head"] = "new"
    recipe["steps"] = [{"distill": kd}]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    command = ["compress", str(tmp_path / "r.yaml"), "-o", str(tmp_path / "out")]
    assert cli.main(command) == 2  # it would teach what it does not know
    assert "whose last layer is new and knows nothing" in capsys.readouterr().err
    recipe["steps"] = [{"train": {"epochs": 0}}, {"distill": kd}]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    assert cli.main([*command, "--dry-run"]) == 0
    assert "'classifier' is new, for 2 outputs: it knows nothing" in capsys.readouterr().err
    assert cli.main([*command, "--quiet"]) == 0
    made, before = lz.load(tmp_path / "out"), lz.load(model)
    assert artifact.labels_of(tmp_path / "out") == ["bad", "good"]
    assert (made.config.num_labels, made.zoo["config"]["num_classes"]) == (2, 2)
    assert made.classifier.weight.std().item() == pytest.approx(made.config.initializer_range, rel=0.5)
    assert not made.classifier.bias.any()
    for name, value in before.state_dict().items():
        if not name.startswith("classifier"):
            assert torch.equal(made.state_dict()[name], value), name
    capsys.readouterr()
    assert cli.main(["predict", str(tmp_path / "out"), "a very good film", "--json"]) == 0
    own, other = tmp_path / "train.tsv", tmp_path / "other.tsv"
    other.write_text(own.read_text())
    counted = [jobs.evaluate(tmp_path / "out", data=str(file), progress=False) for file in (own, other)]
    assert counted[0]["samples"] == round(len(KNOWN) / 10)  # of the file that it learned from, what was cut
    assert (counted[1]["samples"], counted[1]["split"]) == (len(KNOWN), "test")
    of_train = jobs.evaluate(tmp_path / "out", data=str(other), split="train", progress=False)
    assert len(KNOWN) > of_train["samples"] > counted[0]["samples"]


def test_a_decoder_gives_its_last_tokens_row(tmp_path):
    """Its last layer answers for every token, and one row of that is the output."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
    model = lz.model("huggingface", config={"model_type": "gpt2", "pad_token_id": 0, **sizes}, num_classes=4)
    data = [(tokens(4, 7), torch.arange(4) % 3)]
    before = model.transformer.h[0].attn.c_attn.weight.clone()
    with_new_head(model.eval(), lz.Task(train=data, validation=data, labels=["a", "b", "c"]), seed=0)
    artifact.save(model, tmp_path / "m", example_inputs=tokens(1, 7))
    found = lz.load(tmp_path / "m")
    assert found(**tokens(2, 5)).logits.shape == (2, 3)
    assert found.score.out_features == 3
    assert torch.equal(found.transformer.h[0].attn.c_attn.weight, before)
