"""Threads that tokenize a corpus: the same tokens whatever their number, no more parts in memory than they need."""

from __future__ import annotations

import os
import threading
import time

import pytest
from tiny_corpus import write_texts, write_tokenizer

import lianzhi as lz
from lianzhi.errors import DataError, RecipeError
from lianzhi.tasks.corpus import store
from lianzhi.tasks.corpus.workers import PARALLEL, in_order, own_threads
from lianzhi.tasks.readers import sentences


class TestInOrder:
    @pytest.mark.parametrize("workers", [None, 1, 3, 8])
    def test_all_parts_in_their_order(self, workers):
        def late(part):
            time.sleep(0.002 * (part % 3))
            return part * part

        assert list(in_order(late, range(40), workers)) == [part * part for part in range(40)]
        assert list(in_order(late, [], workers)) == []

    @pytest.mark.parametrize("workers", [1, 2, 5])
    def test_no_further_ahead_than_there_are_threads(self, workers):
        read = taken = most = 0

        def parts():
            nonlocal read
            for part in range(30):
                read += 1
                yield part

        for _ in in_order(str, parts(), workers):
            most = max(most, read - taken)
            taken += 1
        assert taken == 30
        assert most == workers + 1

    def test_so_many_at_once(self):
        running = most = 0
        lock, meeting = threading.Lock(), threading.Barrier(3, timeout=60)

        def work(part):
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            meeting.wait()  # fewer than three never go on
            with lock:
                running -= 1

        list(in_order(work, range(12), 3))
        assert most == 3

    @pytest.mark.parametrize("workers", [None, 2])
    def test_what_goes_wrong_is_seen_and_ends_it(self, workers):
        done = []

        def work(part):
            done.append(part)
            if part == 3:
                raise DataError("part 3")
            return part

        made = in_order(work, range(1000), workers)
        assert [next(made) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(DataError, match="part 3"):
            next(made)
        assert len(done) < 10

    def test_a_caller_who_stops_leaves_no_thread(self):
        before = threading.active_count()
        made = in_order(str, range(100), 4)
        next(made)
        made.close()
        assert threading.active_count() == before


class TestOwnThreads:
    @pytest.mark.parametrize("before", [None, "true"])
    def test_the_library_is_told_and_what_was_said_before_comes_back(self, monkeypatch, before):
        monkeypatch.delenv(PARALLEL, raising=False)
        if before:
            monkeypatch.setenv(PARALLEL, before)
        told = []

        def fail():
            with own_threads(2):
                told.append(os.environ[PARALLEL])
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert told == ["false"]
        assert os.environ.get(PARALLEL) == before
        with own_threads(None):
            assert os.environ.get(PARALLEL) == before

    def test_of_two_that_overlap_the_last_puts_it_back(self, monkeypatch):
        monkeypatch.delenv(PARALLEL, raising=False)
        one, other = own_threads(1), own_threads(2)
        one.__enter__()
        other.__enter__()
        one.__exit__(None, None, None)
        assert os.environ[PARALLEL] == "false"
        other.__exit__(None, None, None)
        assert PARALLEL not in os.environ


class TestCorpus:
    def open_with(self, tmp_path, monkeypatch, workers):
        monkeypatch.setattr(store, "AT_ONCE", 7)
        monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path / f"cache-{workers}"))
        texts, place = tmp_path / "texts", tmp_path / "model"
        if not texts.exists():
            write_texts(texts)
            write_tokenizer(place)
        return lz.task("corpus", data=texts, tokenizer=str(place), max_length=32, workers=workers)

    def test_the_same_tokens_and_the_same_task(self, tmp_path, monkeypatch):
        tasks = [self.open_with(tmp_path, monkeypatch, workers) for workers in (None, 1, 3)]
        assert len({task.fingerprint() for task in tasks}) == 1
        kept = [
            {file.name: file.read_bytes() for file in (tmp_path / f"cache-{workers}" / "corpora").iterdir()}
            for workers in (None, 1, 3)
        ]
        assert len(kept[0]) == 2
        assert kept[0] == kept[1] == kept[2]

    def test_the_tokens_are_those_of_each_sentence(self, tmp_path, monkeypatch):
        self.open_with(tmp_path, monkeypatch, 2)
        task = self.open_with(tmp_path, monkeypatch, 2)
        files = sentences.find(tmp_path / "texts")
        corpus = store.open_corpus(files, task.preprocess)
        said = list(sentences.read(files))
        assert len(corpus) == len(said)
        for place, (document, text) in enumerate(said):
            ids = task.preprocess.tokenizer.encode(text, add_special_tokens=False).ids
            assert corpus.tokens(place, 1).tolist() == ids
            assert corpus.rows[place, 1] == document

    def test_a_damaged_line_is_named_and_nothing_is_left(self, tmp_path, monkeypatch):
        monkeypatch.delenv(PARALLEL, raising=False)
        self.open_with(tmp_path, monkeypatch, None)
        (tmp_path / "texts" / "z.txt").write_bytes(b"good words\n\xff\xfe\n")
        with pytest.raises(DataError, match=r"z\.txt, line 2: not UTF-8"):
            self.open_with(tmp_path, monkeypatch, 2)
        folder = tmp_path / "cache-2" / "corpora"
        assert not folder.exists() or not list(folder.iterdir())
        assert os.environ.get(PARALLEL) is None

    @pytest.mark.parametrize("workers", [0, -1, 1.5, "two"])
    def test_a_number_that_is_none(self, tmp_path, monkeypatch, workers):
        with pytest.raises(RecipeError, match="workers"):
            self.open_with(tmp_path, monkeypatch, workers)


def test_all_bytes_are_told(tmp_path):
    write_texts(tmp_path)
    (tmp_path / "brown").mkdir()
    (tmp_path / "brown" / "ca01").write_text("The/at film/nn ./.\n\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "doc-0.json").write_text('["one", "two"]')
    files = sentences.find(tmp_path)
    told = []
    list(sentences.read(files, told.append))
    assert sum(told) == sum(file.stat().st_size for file in files)
