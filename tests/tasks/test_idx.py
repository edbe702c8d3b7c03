"""MNIST and Fashion-MNIST from IDX files, whole and damaged."""

import gzip

import numpy as np
import pytest
from task_samples import idx, images, labels_of, write_mnist

from lianzhi.errors import DataError
from lianzhi.tasks import task
from lianzhi.tasks.builtin import fashion_mnist as fashion
from lianzhi.tasks.readers import debian, hub
from lianzhi.tasks.readers import idx as reader

SMALL = {"validation": 20, "calibration": 20, "verify": False}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["fashion_mnist", "mnist"])
def test_reads_the_four_files(tmp_path, packed, name):
    made = task(name, data=write_mnist(tmp_path, packed=packed), **SMALL)
    assert {split: made.size(split) for split in made.splits} == {
        "train": 160,
        "validation": 20,
        "calibration": 20,
        "test": 50,
    }
    pixels = images(50, size=(28, 28), channels=1)[..., 0]
    batch = next(iter(made.batches("test", 50)))
    assert made.preprocess is not None
    np.testing.assert_allclose(
        batch.inputs[:, 0], (pixels / 255 - made.preprocess.mean[0]) / made.preprocess.std[0], atol=1e-6
    )
    assert batch.labels.tolist() == labels_of(50).tolist()
    assert made.example_inputs.shape == (1, 1, 28, 28)
    assert len(made.labels) == made.num_classes == 10
    assert made.description()["source"] == str(tmp_path)


def test_torchvision_folder(tmp_path):
    write_mnist(tmp_path / "FashionMNIST" / "raw", packed=False)
    assert task("fashion_mnist", data=tmp_path, **SMALL).size("test") == 50


def test_splits_are_disjoint_and_stratified(tmp_path):
    made = task("fashion_mnist", data=write_mnist(tmp_path, train=400), **SMALL)
    rows = {name: set(made.splits[name].rows.tolist()) for name in ("train", "validation", "calibration")}
    assert sum(map(len, rows.values())) == len(set().union(*rows.values())) == 400
    for name in ("validation", "calibration"):
        assert np.bincount(made.splits[name].labels).tolist() == [2] * 10
    other = task("fashion_mnist", data=tmp_path, split_seed=1, **SMALL)
    assert set(other.splits["validation"].rows.tolist()) != rows["validation"]
    assert other.fingerprint() != made.fingerprint()


def test_only_train_is_augmented(tmp_path):
    made = task("fashion_mnist", data=write_mnist(tmp_path), **SMALL)
    for name in ("validation", "calibration", "test"):
        plain, asked = (
            next(iter(made.batches(name, 20, epoch=0, augment=augment))).inputs for augment in (False, True)
        )
        assert (plain == asked).all()


def test_limit(tmp_path):
    made = task("fashion_mnist", data=write_mnist(tmp_path), limit=15, **SMALL)
    assert [made.size(name) for name in made.splits] == [15, 15, 15, 15]


DAMAGE = {
    "truncated": (lambda data: gzip.compress(data)[:-40], "truncated or damaged"),
    "not gzip": (lambda data: b"<html>404</html>", "truncated or damaged"),
    "short": (lambda data: gzip.compress(data[:-1]), "bytes follow its header, which says"),
    "long": (lambda data: gzip.compress(data + b"x"), "more than"),
    "magic": (lambda data: gzip.compress(b"\0\0\x0d" + data[3:]), "not an IDX file of bytes with 3 axes"),
    "huge": (lambda data: gzip.compress(data[:4] + b"\xff" * 12 + data[16:]), "more than 4 GiB"),
    "empty": (lambda data: b"", "not an IDX file|truncated"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_refused(tmp_path, damage):
    write_mnist(tmp_path)
    change, message = DAMAGE[damage]
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(change(gzip.decompress(file.read_bytes())))
    with pytest.raises(DataError, match=message) as caught:
        task("fashion_mnist", data=tmp_path, **SMALL)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("name", ["fashion_mnist", "mnist"])
def test_wrong_checksum(tmp_path, name):
    with pytest.raises(DataError, match=r"wrong checksum.*verify: false"):
        task(name, data=write_mnist(tmp_path))


def test_right_checksum(tmp_path):
    import hashlib

    data = idx(images(3, size=(28, 28), channels=1)[..., 0])
    file = tmp_path / "a.gz"
    file.write_bytes(gzip.compress(data))
    right = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "sha256_packed": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    assert reader.read(file, 3, **right).shape == (3, 28, 28)
    for key in right:
        with pytest.raises(DataError, match="wrong checksum"):
            reader.read(file, 3, **{key: "0" * 64})


def test_missing_pieces(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        task("fashion_mnist", data=tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds neither train-images"):
        task("fashion_mnist", data=tmp_path)
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.gz missing"):
        task("fashion_mnist", data=tmp_path)


def test_wrong_size_and_wrong_label(tmp_path):
    write_mnist(tmp_path / "a", size=(20, 28))
    with pytest.raises(DataError, match="the images are 20x28, and 28x28 is expected"):
        task("fashion_mnist", data=tmp_path / "a", **SMALL)
    write_mnist(tmp_path / "b")
    labels = labels_of(200)
    labels[[7, 9]] = 12
    (tmp_path / "b" / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    with pytest.raises(
        DataError, match=r"train-labels-idx1-ubyte.gz, row 7: label 12 .* 0 to 9 \(and 1 more\)"
    ):
        task("fashion_mnist", data=tmp_path / "b", **SMALL)
    (tmp_path / "b" / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels_of(100))))
    with pytest.raises(DataError, match="200 samples and 100 labels"):
        task("fashion_mnist", data=tmp_path / "b", **SMALL)


def refuse(reason):
    def fetch(*_):
        raise DataError(reason)

    return fetch


def test_where_it_is_looked_for(tmp_path, monkeypatch):
    """Installed, then the cache, then the hub, then the Debian package."""
    monkeypatch.setattr(fashion, "INSTALLED", tmp_path / "installed")
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "fetch", refuse("the hub is down"))
    monkeypatch.setattr(debian, "fetch", refuse("no apt"))
    with pytest.raises(DataError, match=r"the hub is down; no apt\. Give data"):
        task("fashion_mnist")
    monkeypatch.setattr(debian, "fetch", lambda *_: write_mnist(tmp_path / "package"))
    assert fashion.find() == tmp_path / "package"
    monkeypatch.setattr(hub, "fetch", lambda *_: tmp_path / "hub")
    assert fashion.find() == tmp_path / "hub"
    write_mnist(tmp_path / "cache" / "fashion_mnist")
    assert fashion.find() == tmp_path / "cache" / "fashion_mnist"
    write_mnist(tmp_path / "installed")
    assert fashion.find() == tmp_path / "installed"
