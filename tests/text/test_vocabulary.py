"""A smaller vocabulary: the training texts read as before, no new unknown word, ids in step with the embeddings."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_text import SIZES, SPELLED, WORDS, write_tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

import lianzhi as lz
from lianzhi import prune
from lianzhi.errors import DataError, GraphError, RecipeError
from lianzhi.tasks import TextPreprocess
from lianzhi.tasks.texts import retokenized, texts_of
from lianzhi.tasks.vocabulary import count_tokens, reduced

LETTERS = "abcd"
TEXTS = ["abc dab", "ab ab abcd", "dd cab bad", "abcd dabc"]


def trained(kind: str, texts: Sequence[str] = TEXTS, size: int | None = None) -> Tokenizer:
    """A tokenizer of each kind, trained on a few words of four letters."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    lines = [*texts, *LETTERS, "abcabd cdcd bcbc dada", " ".join(LETTERS * 2)] * 3
    if kind == "WordPiece":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordPieceTrainer(
            vocab_size=size or 60, special_tokens=special, show_progress=False
        )
    elif kind == "BPE":
        made = Tokenizer(models.BPE(unk_token="[UNK]"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.BpeTrainer(vocab_size=size or 40, special_tokens=special, show_progress=False)
    else:
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=size or 30, special_tokens=special, unk_token="[UNK]", show_progress=False
        )
    made.train_from_iterator(lines, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


def preprocess_of(tokenizer: Tokenizer) -> TextPreprocess:
    return TextPreprocess(64, ("input_ids", "attention_mask"), members={"tokenizer.json": tokenizer.to_str()})


def counts_of(preprocess: TextPreprocess, texts: list[str]) -> np.ndarray:
    counts = np.zeros(preprocess.tokenizer.get_vocab_size(), np.int64)
    for text in texts:
        np.add.at(counts, preprocess.tokenizer.encode(text).ids, 1)
    return counts


@pytest.mark.parametrize("pad", [0, 7])
def test_the_padding_stays_though_it_is_no_added_token(pad):
    """A RoBERTa's <pad>, or what config.json names."""
    pieces = ["word", "<unk>", *LETTERS, *(f"##{letter}" for letter in LETTERS), "cab"]
    made = Tokenizer(
        models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="<unk>")
    )
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    old = replace(preprocess_of(made), pad_id=pad)
    new, rows = reduced(old, counts_of(old, ["ab dd"]))
    assert rows[new.pad_id] == pad
    assert new.tokenizer.id_to_token(new.pad_id) == pieces[pad]
    assert ("cab" in new.tokenizer.get_vocab()) == (pieces[pad] == "cab")


@pytest.mark.parametrize("kind", ["WordPiece", "BPE", "Unigram"])
def test_what_was_counted_is_read_as_before(kind):
    old = preprocess_of(trained(kind))
    new, rows = reduced(old, counts_of(old, TEXTS))
    assert len(rows) == new.tokenizer.get_vocab_size() < old.tokenizer.get_vocab_size()
    for text in TEXTS:
        before, after = old.tokenizer.encode(text), new.tokenizer.encode(text)
        assert after.tokens == before.tokens
        assert [int(rows[number]) for number in after.ids] == before.ids
    assert new.tokenizer.decode(new.tokenizer.encode("abcd").ids).replace(" ", "")


def test_every_way_to_make_a_token_stays_where_merges_are_all_of_its_splits():
    """As in BPE that was converted from SentencePiece (Llama's, Gemma's): the first merge of a token need not be the one taken."""
    draw = random.Random(0)
    texts = [
        " ".join("".join(draw.choices(LETTERS, k=draw.randint(2, 9))) for _ in range(6)) for _ in range(40)
    ]
    tokenizer = trained("BPE", texts, size=150)
    values = json.loads(tokenizer.to_str())
    ranks = values["model"]["vocab"]
    splits = {
        token: [
            (token[:at], token[at:])
            for at in range(1, len(token))
            if {token[:at], token[at:]} <= ranks.keys()
        ]
        for token in ranks
    }
    values["model"]["merges"] = [
        list(pair)
        for token in sorted(ranks, key=ranks.get)
        if not token.startswith("[")
        for pair in sorted(splits[token], key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    ]
    assert any(len(pairs) > 1 for pairs in splits.values())
    old = preprocess_of(Tokenizer.from_str(json.dumps(values)))
    for text in texts:
        new, rows = reduced(old, counts_of(old, [text]))
        found = [int(rows[number]) for number in new.tokenizer.encode(text).ids]
        assert found == old.tokenizer.encode(text).ids, text


@pytest.mark.parametrize("kind", ["WordPiece", "BPE", "Unigram"])
@given(words=st.lists(st.text(LETTERS, min_size=1, max_size=9), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_no_word_becomes_unknown(kind, words):
    old = preprocess_of(KINDS[kind])
    new, rows = reduced(old, counts_of(old, TEXTS), size=None, least=2)
    text = " ".join(words)
    unknown = old.tokenizer.token_to_id("[UNK]")
    before = [number == unknown for number in old.tokenizer.encode(text).ids]
    after = [int(rows[number]) == unknown for number in new.tokenizer.encode(text).ids]
    assert sum(after) <= sum(before)


KINDS = {kind: trained(kind) for kind in ("WordPiece", "BPE", "Unigram")}


def test_a_character_without_a_piece_of_its_own_keeps_what_reads_it():
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "##a", "b", "##b", "zz", "##zz", "ab", "##ab"]
    tokenizer = Tokenizer(models.WordPiece({word: n for n, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    old = preprocess_of(tokenizer)
    new, _ = reduced(old, counts_of(old, ["a b"]))
    assert new.tokenizer.encode("zz azz abzz").tokens == ["zz", "a", "##zz", "a", "##b", "##zz"]
    assert new.tokenizer.token_to_id("ab") is None


def test_a_size_takes_the_most_frequent():
    old = preprocess_of(trained("WordPiece"))
    counts = counts_of(old, TEXTS)
    _, needed = reduced(old, np.zeros_like(counts))
    new, rows = reduced(old, counts, size=len(needed) + 2)
    assert len(rows) == len(needed) + 2
    others = [int(token) for token in np.argsort(-counts, kind="stable") if token not in set(needed)]
    assert set(rows) - set(needed) == set(others[:2])
    with pytest.raises(DataError, match="too small"):
        reduced(old, counts, size=len(needed) - 1)
    assert new.pad_id == 0


def test_whole_words_are_refused():
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    with pytest.raises(DataError, match="whole words"):
        reduced(preprocess_of(tokenizer), np.array([0, 1]))


@pytest.fixture
def task(glue, tmp_path):
    return lz.task(
        "sst2", data=str(glue / "SST-2"), tokenizer=str(write_tokenizer(tmp_path / "t")), max_length=32
    )


def test_only_training_texts_are_counted(task):
    counts = count_tokens(task)
    expected = np.zeros_like(counts)
    for text in texts_of(task, "train").texts:
        np.add.at(expected, task.preprocess.tokenizer.encode(text).ids, 1)
    assert np.array_equal(counts, expected)
    assert counts.sum() < sum(count_tokens(task, name).sum() for name in task.splits)


def test_the_model_computes_the_same(bert):
    model = lz.model("huggingface", path=str(bert), num_classes=2).eval()
    rows = np.array([0, 1, 2, 3, 7, 12, 30])
    ids = torch.tensor([[2, 4, 6, 5, 3], [2, 6, 3, 0, 0]])
    mask = (ids != 0).long()
    with torch.no_grad():
        before = model(input_ids=torch.from_numpy(rows)[ids], attention_mask=mask).logits
        prune.keep_tokens(model, rows, prune.token_tables(model, len(WORDS)))
        after = model(input_ids=ids, attention_mask=mask).logits
    assert torch.equal(before, after)
    assert model.config.vocab_size == 7


def test_an_output_layer_that_is_tied_stays_tied():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(9, 4)
            self.out = torch.nn.Linear(4, 9, bias=False)
            self.out.weight = self.table.weight

    model = Tied()
    prune.keep_tokens(model, np.array([0, 5]), ["table"])
    assert model.out.weight is model.table.weight
    assert model.table.weight.shape == (2, 4)


def test_a_model_without_such_a_table_is_refused():
    with pytest.raises(GraphError, match="no embedding of the tokenizer's 50 tokens"):
        prune.token_tables(torch.nn.Embedding(49, 4), 50)


def test_in_a_recipe_with_a_teacher_afterwards(glue, tmp_path, monkeypatch):
    """The teacher reads the texts with its own tokenizer, by sample."""
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path / "cache"))
    folder = write_tokenizer(tmp_path / "tokenizer", SPELLED)
    task = lz.task("sst2", data=str(glue / "SST-2"), tokenizer=str(folder), max_length=32)
    model = lz.model("huggingface", config={**SIZES, "vocab_size": len(SPELLED)}, num_classes=2)
    size = len(SPELLED) - 10
    fast = {"optimizer": "adamw", "lr": 1e-3, "batch_size": 32, "epochs": 1}
    result = lz.compress(
        model,
        task,
        [lz.Train(**fast), lz.ReduceVocabulary(size=size), lz.Distill(**fast)],
        output=tmp_path / "out",
        target="onnxruntime",
        measure=lz.Measure(batches=(1,), repeats=2, threads=1),
        progress=False,
    )
    rows = result.report.rows
    details = rows[2]["details"]
    assert (details["tokens_before"], details["tokens_after"]) == (len(SPELLED), size)
    assert rows[2]["parameters"] == rows[1]["parameters"] - 32 * 10
    found = lz.load(tmp_path / "out")
    assert found.config.vocab_size == details["tokens_after"]
    saved = TextPreprocess.load(tmp_path / "out")
    assert saved.tokenizer.get_vocab_size() == details["tokens_after"]
    assert 0 < rows[3]["details"]["history"]["epochs"][0]["terms"]["soft"] < 10
    assert len(list((tmp_path / "cache" / "teachers").iterdir())) == 1


def test_a_task_of_images_has_no_vocabulary(tmp_path):
    task = lz.task("synthetic", samples=64, classes=2, shape=(3, 8, 8))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    with pytest.raises(RecipeError, match="no training texts"):
        lz.compress(model, task, [lz.ReduceVocabulary()], output=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_post_processors_of_every_kind_are_renumbered():
    for processor in (
        processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)),
        processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)),
        processors.Sequence([processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))]),
    ):
        tokenizer = trained("WordPiece")
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.post_processor = processor
        old = preprocess_of(tokenizer)
        values = json.loads(old.members["tokenizer.json"])
        order = sorted(values["model"]["vocab"], reverse=True)  # special tokens are not the first ones
        ids = {name: place for place, name in enumerate(order)}
        values["model"]["vocab"] = ids
        for token in values["added_tokens"]:
            token["id"] = ids[token["content"]]
        text = json.dumps(values)
        for name in ("[SEP]", "[CLS]"):
            text = text.replace(f'["{name}", {3 if name == "[SEP]" else 2}]', f'["{name}", {ids[name]}]')
        old = replace(old, pad_id=ids["[PAD]"], members={"tokenizer.json": text})
        new, rows = reduced(old, counts_of(old, TEXTS))
        before, after = old.tokenizer.encode("abc dab"), new.tokenizer.encode("abc dab")
        assert after.tokens == before.tokens
        assert [int(rows[number]) for number in after.ids] == before.ids
        assert after.tokens[0] == "[CLS]"
        assert int(rows[new.pad_id]) == old.pad_id


@pytest.mark.parametrize("kind", ["WordPiece", "BPE", "Unigram"])
def test_pairs_that_are_cut_are_read_as_before(kind, tmp_path):
    """Of a pair the longer text is cut, so that it depends on the ends, which the model does not see."""
    draw = random.Random(0)
    words = ["".join(draw.choices(LETTERS, k=draw.randint(2, 9))) for _ in range(400)]
    texts = [" ".join(draw.choices(words, k=draw.randint(2, 8))) for _ in range(400)]
    trained(kind, texts, 300).save(str(tmp_path / "tokenizer.json"))
    lines = [f"{texts[at]}\t{texts[at + 60]}\t{at % 2}" for at in range(60)]
    (tmp_path / "train.tsv").write_text("\n".join(["one\ttwo\tlabel", *lines]))
    options = {"text": "one", "second": "two", "validation": 1, "calibration": 1, "test": 1, "max_length": 9}
    own = lz.task("text", data=tmp_path / "train.tsv", tokenizer=str(tmp_path), **options)
    train = own.splits["train"]
    new, rows = reduced(own.preprocess, count_tokens(own))
    assert train.tokens.cut[train.rows].sum() > 40
    assert len(rows) < own.preprocess.ids
    again = retokenized(own, new).splits["train"]
    for row in train.rows:
        assert [int(rows[number]) for number in again.tokens.row(row)] == train.tokens.row(row).tolist()


def test_ids_may_have_gaps_between_them(glue, tmp_path):
    place = write_tokenizer(tmp_path / "t")
    values = json.loads((place / "tokenizer.json").read_text())
    values["model"]["vocab"]["film"] = 70_000
    (place / "tokenizer.json").write_text(json.dumps(values))
    task = lz.task("sst2", data=str(glue / "SST-2"), tokenizer=str(place), max_length=32)
    counts = count_tokens(task)
    assert len(counts) == 70_001
    assert counts[70_000] == sum(text.split().count("film") for text in texts_of(task, "train").texts) > 0
    new, rows = reduced(task.preprocess, counts)
    assert rows[-1] == 70_000
    assert new.tokenizer.token_to_id("film") == len(rows) - 1 == new.ids - 1


def test_positions_that_are_counted_from_the_padding_stay(tmp_path):
    """A RoBERTa's first position is the one behind its padding's id."""
    pieces = ["word", "other", "<pad>", "<unk>", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    made = Tokenizer(
        models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="<unk>")
    )
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    old = replace(preprocess_of(made), pad_id=2)
    new, rows = reduced(old, counts_of(old, ["ab"]))
    config = {
        **SIZES,
        "model_type": "roberta",
        "vocab_size": len(pieces),
        "pad_token_id": 2,
        "type_vocab_size": 1,
    }
    model = lz.model("huggingface", config=config, num_classes=2).eval()

    def said(preprocess):
        with torch.no_grad():
            return model(
                **{key: torch.from_numpy(value) for key, value in preprocess("ab dcb").items()}
            ).logits

    before = said(old)
    prune.keep_tokens(model, rows, prune.token_tables(model, len(pieces)))
    assert torch.equal(said(new), before)
    lz.save(model, tmp_path / "m", example_inputs={key: torch.from_numpy(v) for key, v in new("ab").items()})
    model = lz.load(tmp_path / "m")
    assert torch.allclose(said(new), before, atol=1e-6)
