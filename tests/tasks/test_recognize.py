"""What data lies at a place, by names and columns."""

from __future__ import annotations

import gzip
import re
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lianzhi.errors import DataError
from lianzhi.tasks import registry
from lianzhi.tasks.recognize import GLUE, IMAGE_SETS, explained, recognize


def images(folder, *classes):
    for name in classes:
        (folder / name).mkdir(parents=True)
        (folder / name / "0.PNG").touch()


def table(file, **columns):
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)


def idx(folder, name, contents=b""):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.gz").write_bytes(gzip.compress(contents))


def write(kind, place):
    """Data of a kind."""
    if kind == "classes":
        images(place, "cat", "dog")
    elif kind == "parts":
        images(place / "train", "cat", "dog")
        images(place / "val", "cat", "dog")
    elif kind == "wnids":
        images(place / "train", "n01440764", "n01443537")
        (place / "classes.txt").touch()
    elif kind == "images in Parquet":
        table(place / "train-00000-of-00002.parquet", img=[{"bytes": b"x", "path": None}], label=[0])
        table(place / "test.parquet", img=[{"bytes": b"x", "path": None}], label=[0])
    elif kind == "one part of ImageNet":
        table(place / "even.parquet", image=[{"bytes": b"x", "path": None}], label=[0])
        (place / "classes.txt").touch()
    elif kind == "texts in Parquet":
        table(place / "data" / "train.parquet", sentence=["a"], label=[0])
    elif kind == "idx":
        idx(place, "train-images-idx3-ubyte")
    elif kind == "arrays":
        place.mkdir()
        np.savez(place / "train.npz", x=np.zeros(2), y=np.zeros(2))
    elif kind == "cifar":
        (place / "cifar-10-batches-py").mkdir(parents=True)
    elif kind == "pairs":
        place.mkdir()
        (place / "train.jsonl").write_text('{"premise": "a", "hypothesis": "b", "label": 1}\n')
    elif kind == "scores":
        place.mkdir()
        (place / "train.tsv").write_text("sentence1\tsentence2\tscore\na\tb\t0.5\n")


@pytest.mark.parametrize(
    ("kind", "name", "task", "what"),
    [
        ("classes", "photos", "image_folder", r"images, a folder a class \(2\)"),
        ("parts", "photos", "image_folder", r"a folder a class \(2\) in train, val"),
        ("wnids", "ilsvrc", "imagenet", "2 of its classes"),
        ("images in Parquet", "birds", "parquet", r"images \(train, test\)"),
        ("images in Parquet", "CIFAR-10", "cifar10", "cifar10 in Parquet"),
        ("one part of ImageNet", "sample", "imagenet", "ImageNet in Parquet"),
        ("texts in Parquet", "reviews", "text", "PARQUET with texts in 'sentence', classes in 'label'"),
        ("idx", "digits", "mnist", "IDX"),
        ("idx", "FashionMNIST", "fashion_mnist", "IDX"),
        ("arrays", "numbers", "npz", "NumPy"),
        ("cifar", "data", "cifar10", "as its authors"),
        ("pairs", "nli", "text", "texts in 'premise' and 'hypothesis'"),
        ("scores", "sts", "text", "scores in 'score'"),
    ],
)
def test_kinds_of_data(tmp_path, kind, name, task, what):
    write(kind, tmp_path / name)
    found = recognize(tmp_path / name)
    assert found is not None
    assert found.task == task
    options = {"scores": {"score": True}, "one part of ImageNet": {"calibration": 128}}
    assert found.options == options.get(kind, {})
    assert re.search(what, found.what)


def test_fashion_is_known_by_its_checksum(tmp_path, monkeypatch):
    import hashlib

    from lianzhi.tasks.builtin import fashion_mnist

    labels = struct.pack(">II", 2049, 3) + bytes([1, 2, 3])
    idx(tmp_path / "a", "train-images-idx3-ubyte")
    idx(tmp_path / "a", "t10k-labels-idx1-ubyte", labels)
    assert recognize(tmp_path / "a").task == "mnist"
    known = {"t10k-labels-idx1-ubyte": hashlib.sha256(labels).hexdigest()}
    monkeypatch.setattr(fashion_mnist, "UNPACKED", known)
    assert recognize(tmp_path / "a").task == "fashion_mnist"


@pytest.mark.parametrize("name", sorted(GLUE))
def test_the_folders_of_glue(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "train.tsv").write_text("anything\n")
    assert recognize(tmp_path / name).task == GLUE[name]


def test_every_task_that_is_named_exists():
    assert {*GLUE.values(), *IMAGE_SETS, "snli", "xnli", "image_folder", "parquet", "npz", "text"} <= set(
        registry.names()
    )


def test_what_is_no_data(tmp_path):
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "empty").mkdir()
    images(tmp_path / "flat")
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "0.png").touch()
    for name in ("notes.txt", "empty", "flat", "nowhere"):
        assert recognize(tmp_path / name) is None
    with pytest.raises(
        DataError, match=r"no data that is known\. Data is a folder with one subfolder of images"
    ):
        explained(tmp_path / "flat")
    with pytest.raises(DataError, match="no such file or folder"):
        explained(tmp_path / "nowhere")


def test_half_of_the_data_is_said(tmp_path):
    images(tmp_path / "photos" / "val", "cat")
    with pytest.raises(DataError, match="no train beside it"):
        recognize(tmp_path / "photos")
    (tmp_path / "a.csv").write_text("body,stars\nx,1\n")
    with pytest.raises(DataError, match="which column is the text"):
        recognize(tmp_path / "a.csv")
    found = recognize(tmp_path / "a.csv", {"text": "body", "label": "stars"})
    assert found.what == "CSV with texts in 'body', classes in 'stars'"
