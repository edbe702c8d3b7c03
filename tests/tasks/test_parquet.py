"""Parquet tables of images: CIFAR and friends as on the hub, and a user's own."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from task_samples import encode, images, labels_of, write_parquet

from lianzhi.errors import DataError
from lianzhi.tasks import cache, task
from lianzhi.tasks.readers import hub, parquet

SMALL = {"validation": 20, "calibration": 10}
SETS = {
    "cifar10": ((32, 32), 3, "img", "label"),
    "cifar100": ((32, 32), 3, "img", "fine_label"),
    "mnist": ((28, 28), 1, "image", "label"),
    "fashion_mnist": ((28, 28), 1, "image", "label"),
    "svhn": ((32, 32), 3, "image", "label"),
}


def hub_like(folder, name="cifar10", *, train=100, test=30, **options):
    size, channels, image, label = SETS[name]
    for part, count in (("train", train), ("test", test)):
        pictures = images(count, size=size, channels=channels, seed=len(part))
        write_parquet(
            folder / f"{part}-00000-of-00001.parquet",
            pictures,
            labels_of(count),
            image=image,
            label=label,
            **options,
        )
    return folder


@pytest.mark.parametrize("name", SETS)
def test_as_on_the_hub(tmp_path, name):
    made = task(name, data=hub_like(tmp_path / "plain_text", name).parent, **SMALL)
    size, channels, *_ = SETS[name]
    batch = next(iter(made.batches("test", 30)))
    pixels = images(30, size=size, channels=channels, seed=4).transpose(0, 3, 1, 2)
    assert np.array_equal(batch.inputs.numpy(), made.preprocess.normalize(pixels))
    assert batch.labels.tolist() == labels_of(30).tolist()
    assert len(made.labels) == made.num_classes
    assert made.size("train") == 70


def test_from_the_hub(tmp_path, monkeypatch):
    hub_like(tmp_path)
    asked = []
    monkeypatch.setattr(hub, "fetch", lambda *given: asked.append(given) or tmp_path)
    assert task("cifar10", **SMALL).size("test") == 30
    assert asked == [("uoft-cs/cifar10", "*.parquet")]


def test_no_data_and_no_hub(monkeypatch):
    def fetch(*_):
        raise DataError("the hub is down")

    monkeypatch.setattr(hub, "fetch", fetch)
    with pytest.raises(
        DataError,
        match=r"no data was given, and the hub is down; give data: a folder with cifar-10-batches-py",
    ):
        task("cifar10")


def test_a_jpeg_copy_is_said_so(tmp_path):
    assert task("cifar10", data=hub_like(tmp_path / "a"), **SMALL).description()["notes"] == []
    made = task("cifar10", data=hub_like(tmp_path / "b", kind="JPEG"), **SMALL)
    assert made.description()["notes"] == ["CIFAR-10 (JPEG copy)"]


def test_decoded_images_are_kept_and_found_again(tmp_path, monkeypatch):
    hub_like(tmp_path)
    first = task("cifar10", data=tmp_path, **SMALL)
    monkeypatch.setattr("lianzhi.tasks.pictures.decode_all", None)  # would fail if it were called
    again = task("cifar10", data=tmp_path, **SMALL)
    assert again.fingerprint() == first.fingerprint()
    one, two = (
        next(iter(made.batches("train", 50, epoch=0, augment=True))).inputs for made in (first, again)
    )
    assert (one == two).all()


def test_damaged_cache_is_made_again(tmp_path):
    hub_like(tmp_path)
    first = task("cifar10", data=tmp_path, **SMALL)
    kept = sorted((cache.folder() / "arrays").iterdir())
    assert len(kept) == 2
    for file in kept:
        file.write_bytes(file.read_bytes()[:1000])
    again = task("cifar10", data=tmp_path, **SMALL)
    assert (
        next(iter(again.batches("test", 30))).inputs == next(iter(first.batches("test", 30))).inputs
    ).all()


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path / "file"))
    assert task("cifar10", data=hub_like(tmp_path / "data"), **SMALL).size("test") == 30


def test_changed_data_is_another_fingerprint(tmp_path):
    first = task("cifar10", data=hub_like(tmp_path / "a"), **SMALL).fingerprint()
    assert task("cifar10", data=hub_like(tmp_path / "b"), **SMALL).fingerprint() == first
    hub_like(tmp_path / "c")
    write_parquet(tmp_path / "c" / "train-00000-of-00001.parquet", images(100, seed=99), labels_of(100))
    assert task("cifar10", data=tmp_path / "c", **SMALL).fingerprint() != first


def damage(folder, row, data=None, label=None):
    """Change one row of the training table."""
    file = folder / "train-00000-of-00001.parquet"
    table = pq.read_table(file).to_pylist()
    if data is not None:
        table[row]["img"]["bytes"] = data
    if label is not None:
        table[row]["label"] = label
    pq.write_table(pa.Table.from_pylist(table), file)


PNG = encode(images(1)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": b"rubbish"}, r"train-0.*, row 17: the image cannot be read"),
        ({"data": PNG[: len(PNG) // 2]}, r"row 17: the image cannot be read"),
        ({"data": encode(images(1, size=(28, 32))[0])}, r"row 17: the image is 28x32, and 32x32 is expected"),
        ({"label": 10}, r"row 17: label 10 is outside the class range 0 to 9"),
        ({"label": -1}, r"row 17: label -1 is outside"),
    ],
)
def test_a_bad_row_is_named(tmp_path, change, message):
    damage(hub_like(tmp_path), 17, **change)
    with pytest.raises(DataError, match=message):
        task("cifar10", data=tmp_path, **SMALL)


def test_missing_values(tmp_path):
    hub_like(tmp_path)
    file = tmp_path / "train-00000-of-00001.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[3]["label"] = None
    pq.write_table(pa.Table.from_pylist(rows), file)
    with pytest.raises(DataError, match="row 3: no label"):
        task("cifar10", data=tmp_path)
    rows[3].update(label=1, img={"bytes": None, "path": "x"})
    pq.write_table(pa.Table.from_pylist(rows), file)
    with pytest.raises(DataError, match="row 3: no image bytes"):
        task("cifar10", data=tmp_path)


def test_damaged_and_missing_files(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        task("cifar10", data=tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no CIFAR-10: neither train"):
        task("cifar10", data=tmp_path)
    hub_like(tmp_path)
    file = tmp_path / "test-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        task("cifar10", data=tmp_path)
    file.unlink()
    with pytest.raises(DataError, match=r"no test\*.parquet beside the other part"):
        task("cifar10", data=tmp_path)


def test_an_empty_part(tmp_path):
    hub_like(tmp_path)
    write_parquet(tmp_path / "test-00000-of-00001.parquet", images(1), labels_of(1))
    file = tmp_path / "test-00000-of-00001.parquet"
    pq.write_table(pq.read_table(file).slice(0, 0), file)
    with pytest.raises(DataError, match=r"test-.*\.parquet: has no rows"):
        task("cifar10", data=tmp_path, **SMALL)


def test_columns(tmp_path):
    file = write_parquet(tmp_path / "a.parquet", images(20), labels_of(20, 2), image="photo", label="kind")
    with pytest.raises(DataError, match=r"no image column among photo, kind .* the option 'image'"):
        task("parquet", data=file)
    with pytest.raises(DataError, match="no column 'foto'; did you mean 'photo'"):
        task("parquet", data=file, image="foto", label="kind")
    made = task("parquet", data=file, image="photo", label="kind")
    assert made.num_classes == 2
    with pytest.raises(DataError, match="must hold encoded images"):
        task("parquet", data=file, image="kind", label="kind")
    with pytest.raises(DataError, match="labels are"):
        task("parquet", data=file, image="photo", label="photo")


def test_one_file_is_cut_into_all_parts(tmp_path):
    file = write_parquet(tmp_path / "own.parquet", images(100, size=(20, 24)), labels_of(100, 4), plain=True)
    made = task("parquet", data=file)
    assert {name: made.size(name) for name in made.splits} == {
        "train": 70,
        "validation": 10,
        "calibration": 10,
        "test": 10,
    }
    rows = np.concatenate([split.rows for split in made.splits.values()])
    assert sorted(rows.tolist()) == list(range(100))
    assert made.example_inputs.shape == (1, 3, 20, 24)


def test_statistics_are_of_the_training_part(tmp_path):
    pictures = images(60, size=(8, 8))
    made = task("parquet", data=write_parquet(tmp_path / "own.parquet", pictures, labels_of(60, 3)))
    train = pictures[made.splits["train"].rows] / 255
    np.testing.assert_allclose(made.preprocess.mean, train.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(made.preprocess.std, train.std((0, 1, 2)), atol=1e-5)
    told = task("parquet", data=tmp_path / "own.parquet", mean=(0.1, 0.2, 0.3), std=(1, 1, 1))
    assert (told.preprocess.mean, told.preprocess.std) == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))


def test_class_names(tmp_path):
    words = ["dog", "cat", "eel"] * 20
    made = task("parquet", data=write_parquet(tmp_path / "a.parquet", images(60, size=(8, 8)), words))
    assert made.labels == ["cat", "dog", "eel"]
    labels = np.concatenate([split.labels for split in made.splits.values()])
    rows = np.concatenate([split.rows for split in made.splits.values()])
    assert [made.labels[label] for label in labels] == [words[row] for row in rows]
    noted = write_parquet(
        tmp_path / "b.parquet", images(60, size=(8, 8)), labels_of(60, 2), names=["no", "yes"]
    )
    assert task("parquet", data=noted).labels == ["no", "yes"]
    write_parquet(tmp_path / "c" / "train.parquet", images(30, size=(8, 8)), ["a", "b"] * 15)
    write_parquet(tmp_path / "c" / "test.parquet", images(4, size=(8, 8)), ["a", "z", "a", "b"])
    with pytest.raises(DataError, match="test, row 1: the class 'z' is not in the training part"):
        task("parquet", data=tmp_path / "c")


def test_two_parts_the_second_is_reported(tmp_path):
    for part, count in (("train", 60), ("validation", 20)):
        write_parquet(tmp_path / f"{part}.parquet", images(count, size=(8, 8)), labels_of(count, 2))
    made = task("parquet", data=tmp_path)
    assert {name: made.size(name) for name in made.splits} == {
        "train": 48,
        "validation": 6,
        "calibration": 6,
        "test": 20,
    }
    write_parquet(tmp_path / "test.parquet", images(9, size=(8, 8)), labels_of(9, 2))
    made = task("parquet", data=tmp_path)
    assert {name: made.size(name) for name in made.splits} == {
        "train": 54,
        "validation": 20,
        "calibration": 6,
        "test": 9,
    }


def test_a_table_too_large_for_memory(tmp_path, monkeypatch):
    file = write_parquet(tmp_path / "own.parquet", images(100, size=(8, 8)), labels_of(100, 4))
    expected = parquet.read([file])
    monkeypatch.setattr(parquet, "IN_MEMORY", 10)
    mapped = parquet.read([file])
    assert [mapped.encoded(row) for row in (0, 57, 99)] == [expected.encoded(row) for row in (0, 57, 99)]
    assert mapped.labels.tolist() == expected.labels.tolist()
    assert len(list((cache.folder() / "tables").iterdir())) == 1


def test_where_a_row_is(tmp_path):
    files = [write_parquet(tmp_path / f"{n}.parquet", images(3, size=(8, 8)), labels_of(3)) for n in range(2)]
    table = parquet.read(files)
    assert table.where(4) == f"{files[1]}, row 1"
