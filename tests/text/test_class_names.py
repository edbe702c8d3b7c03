"""A saved classifier of texts keeps the numbers of its classes, whatever data it is evaluated on or trained with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_text import BAD, GOOD, MORE, tokens

import lianzhi as lz
from lianzhi import artifact, cli, jobs
from lianzhi.errors import DataError
from lianzhi.tasks import TextPreprocess

NAMES = ["neg", "neu", "pos"]
TEXTS = [f"{word} {other}" for word in (*GOOD, *BAD) for other in MORE]


@pytest.fixture(scope="module")
def three(bert, tmp_path_factory) -> Path:
    """An artifact of three classes, each of which it gives to some of the texts."""
    torch.manual_seed(3)
    model = lz.model("huggingface", path=str(bert), num_classes=3).eval()
    preprocess = TextPreprocess.open(str(bert), max_length=16)
    with torch.no_grad():
        ids = [torch.from_numpy(preprocess(text)["input_ids"]) for text in TEXTS]
        model.classifier.bias -= torch.cat([model(one).logits for one in ids]).median(0).values
    folder = tmp_path_factory.mktemp("names") / "three"
    return artifact.save(
        model,
        folder,
        example_inputs=tokens(1, 7),
        preprocess=preprocess,
        labels=NAMES,
        tokenizer=preprocess.members,
    )


@pytest.fixture(scope="module")
def said(three) -> dict[str, str]:
    """What the model says of each text."""
    found = jobs.predict(three, TEXTS, runtime="pytorch")
    return {text: item["classes"][0]["name"] for text, item in zip(TEXTS, found, strict=True)}


def write(folder: Path, rows) -> str:
    (folder / "test.tsv").write_text(
        "".join(f"{text}\t{label}\n" for text, label in [("text", "label"), *rows])
    )
    return str(folder)


def test_data_with_some_of_the_classes_is_counted_by_their_own_numbers(three, said, tmp_path):
    assert set(said.values()) == set(NAMES)
    data = write(tmp_path, [(text, name) for text, name in said.items() if name != "neu"])
    found = jobs.evaluate(three, task="text", data=data, progress=False)
    assert found["value"] == 1.0


def test_one_file_is_counted_whole(three, said, tmp_path):
    data = write(tmp_path, said.items())
    found = jobs.evaluate(three, task="text", data=f"{data}/test.tsv", progress=False)
    assert (found["value"], found["samples"], found["split"]) == (1.0, len(said), "test")


def test_numbers_are_those_of_the_model(three, said, tmp_path):
    data = write(tmp_path, [(text, NAMES.index(name)) for text, name in said.items()])
    assert jobs.evaluate(three, task="text", data=data, progress=False)["value"] == 1.0


def test_classes_that_the_model_does_not_have_are_refused_by_line(three, said, tmp_path, capsys):
    others = dict(zip(NAMES, ("zeta", "beta", "alpha"), strict=True))
    data = write(tmp_path, [(text, others[name]) for text, name in said.items()])
    assert cli.main(["evaluate", str(three), "--task", "text", "--data", data, "--quiet"]) == 2
    error = capsys.readouterr().err
    assert "test.tsv, line 2: label" in error
    assert "known: neg, neu, pos" in error


def test_the_same_classes_in_another_order_are_refused(three, said, tmp_path):
    data = write(tmp_path, said.items())
    with pytest.raises(
        DataError, match=r"calls class 0 'neg', and the task 'text' on .* 'pos'.*: neg, neu, pos"
    ):
        jobs.evaluate(three, task="text", data=data, options={"labels": NAMES[::-1]}, progress=False)


@pytest.mark.parametrize("others", [NAMES[::-1], ["zeta", "beta", "alpha"]])
def test_names_that_a_file_keeps_for_its_numbers_count(three, said, tmp_path, others):
    """By number alone, every text of 'pos' would be right under whatever name the file has for 2."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    feature = {"label": {"names": others, "_type": "ClassLabel"}}
    table = pa.table({"text": list(said), "label": [NAMES.index(name) for name in said.values()]})
    told = {b"huggingface": json.dumps({"info": {"features": feature}}).encode()}
    pq.write_table(table.replace_schema_metadata(told), tmp_path / "test.parquet")
    if others[0] == "zeta":
        with pytest.raises(
            DataError, match=r"test.parquet, row 0: label '\w+' is unknown; known: neg, neu, pos"
        ):
            jobs.evaluate(three, task="text", data=str(tmp_path), progress=False)
        return
    found = jobs.evaluate(three, task="text", data=str(tmp_path), progress=False)
    assert found["value"] == pytest.approx(list(said.values()).count("neu") / len(said))
