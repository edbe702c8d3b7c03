"""Image folders of one's own, and ImageNet's."""

import numpy as np
import pytest
from PIL import Image
from task_samples import encode, images, labels_of, write_folder, write_parquet

from lianzhi.errors import DataError
from lianzhi.tasks import cache, task


def sizes(made):
    return {name: made.size(name) for name in made.splits}


def test_one_folder_is_cut(tmp_path):
    made = task("image_folder", data=write_folder(tmp_path, 20))
    assert sizes(made) == {"train": 28, "validation": 4, "calibration": 4, "test": 4}
    assert made.labels == ["cat", "dog"]
    assert made.example_inputs.shape == (1, 3, 16, 16)
    assert all(np.bincount(split.labels).tolist() == [split.size / 2] * 2 for split in made.splits.values())


@pytest.mark.parametrize("names", [("train", "val", "test"), ("training", "validation", "test")])
def test_three_parts(tmp_path, names):
    for name, count in zip(names, (20, 4, 3), strict=True):
        write_folder(tmp_path / name, count, seed=count)
    made = task("image_folder", data=tmp_path)
    assert sizes(made) == {"train": 36, "validation": 8, "calibration": 4, "test": 6}
    pixels = images(6, size=(16, 16), seed=3).transpose(0, 3, 1, 2)
    batch = next(iter(made.batches("test", 6)))
    assert np.array_equal(batch.inputs.numpy(), made.preprocess.normalize(pixels))
    assert batch.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_two_parts_the_second_is_reported(tmp_path):
    write_folder(tmp_path / "train", 20)
    write_folder(tmp_path / "val", 5)
    made = task("image_folder", data=tmp_path)
    assert sizes(made) == {"train": 32, "validation": 4, "calibration": 4, "test": 10}
    assert made.reported == "test"


def test_greyscale_and_told_colours(tmp_path):
    write_folder(tmp_path, 10)
    for file in tmp_path.rglob("*.png"):
        Image.open(file).convert("L").save(file)
    assert task("image_folder", data=tmp_path).example_inputs.shape == (1, 1, 16, 16)
    assert task("image_folder", data=tmp_path, channels=3).example_inputs.shape == (1, 3, 16, 16)


def test_scaled_to_a_size(tmp_path):
    write_folder(tmp_path, 10, size=(20, 30))
    made = task("image_folder", data=tmp_path, size=12)
    assert made.example_inputs.shape == (1, 3, 12, 12)
    first = next(iter(made.batches("test", 1)))
    file = made.splits["test"].store
    assert (made.preprocess.resize, made.preprocess.crop) == (12, (12, 12))
    row = int(made.splits["test"].rows[0])
    path = sorted(tmp_path.rglob("*.png"))[row]
    assert np.array_equal(made.preprocess(Image.open(path)), first.inputs.numpy())
    assert len(file) == 20
    assert task("image_folder", data=tmp_path, size=(10, 14)).example_inputs.shape == (1, 3, 10, 14)


def test_large_images_are_those_of_the_preprocessing(tmp_path):
    write_folder(tmp_path, 10, size=(100, 130), kind="JPEG")
    made = task("image_folder", data=tmp_path)
    assert made.example_inputs.shape == (1, 3, 224, 224)
    assert (made.preprocess.resize, made.preprocess.crop) == (256, (224, 224))
    batch = next(iter(made.batches("validation", 2)))
    paths = sorted(tmp_path.rglob("*.jpeg"))
    for place, row in enumerate(made.splits["validation"].rows):
        assert np.array_equal(made.preprocess(Image.open(paths[row]))[0], batch.inputs[place].numpy())
    assert 0.4 < made.preprocess.mean[0] < 0.6


DAMAGE = {
    "text": lambda file: file.write_text("not an image"),
    "empty": lambda file: file.write_bytes(b""),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(("size", "kind"), [((16, 16), "PNG"), ((100, 90), "PNG"), ((100, 90), "JPEG")])
def test_a_damaged_image_is_named_before_training(tmp_path, damage, size, kind):
    write_folder(tmp_path, 8, size=size, kind=kind)
    file = tmp_path / "dog" / f"005.{kind.lower()}"
    DAMAGE[damage](file)
    with pytest.raises(DataError, match="the image cannot be read") as caught:
        task("image_folder", data=tmp_path)
    assert str(file) in str(caught.value)


def test_an_image_damaged_later_is_named(tmp_path):
    write_folder(tmp_path, 8, size=(100, 90))
    made = task("image_folder", data=tmp_path)
    for file in tmp_path.rglob("*.png"):
        DAMAGE["half"](file)
    with pytest.raises(DataError, match=r"\.png: the image cannot be read"):
        list(made.batches("train", 4))


def test_looked_at_only_once(tmp_path, monkeypatch):
    write_folder(tmp_path, 8, size=(100, 90))
    task("image_folder", data=tmp_path)
    assert len(list((cache.folder() / "checked").iterdir())) == 1
    monkeypatch.setattr("lianzhi.tasks.pictures._check", None)
    task("image_folder", data=tmp_path)


def test_small_images_of_another_size(tmp_path):
    write_folder(tmp_path, 8)
    (tmp_path / "dog" / "003.png").write_bytes(encode(images(1, size=(16, 17))[0]))
    with pytest.raises(
        DataError, match=r"dog/003.png: the image is 16x17, and 16x16 is expected .* option 'size'"
    ):
        task("image_folder", data=tmp_path)
    assert task("image_folder", data=tmp_path, size=16).example_inputs.shape == (1, 3, 16, 16)


def test_wrong_folders(tmp_path):
    with pytest.raises(DataError, match="give data"):
        task("image_folder")
    with pytest.raises(DataError, match="no such folder"):
        task("image_folder", data=tmp_path / "nowhere")
    with pytest.raises(DataError, match="no class folders; put the images of each class"):
        task("image_folder", data=tmp_path)
    (tmp_path / "a.png").write_bytes(encode(images(1)[0]))
    with pytest.raises(DataError, match="1 images but no class folders"):
        task("image_folder", data=tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="hold no images"):
        task("image_folder", data=tmp_path)


def test_parts_without_a_training_part_are_no_classes(tmp_path):
    for name in ("val", "test"):
        write_folder(tmp_path / name, 8)
    with pytest.raises(DataError, match="has test, val with class folders, and no train"):
        task("image_folder", data=tmp_path)


def test_an_unknown_class_in_the_test_part(tmp_path):
    write_folder(tmp_path / "train", 10)
    write_folder(tmp_path / "test", 3, classes=("cat", "dgo"))
    with pytest.raises(DataError, match="the class 'dgo' is not one of the 2 known; did you mean 'dog'"):
        task("image_folder", data=tmp_path)


def test_fingerprint_follows_the_contents(tmp_path):
    first = task("image_folder", data=write_folder(tmp_path / "a", 10)).fingerprint()
    assert task("image_folder", data=write_folder(tmp_path / "b", 10)).fingerprint() == first
    assert task("image_folder", data=write_folder(tmp_path / "c", 10, seed=1)).fingerprint() != first


WNIDS = [f"n{number:08d}" for number in range(1000)]


def write_classes(folder, wnids=WNIDS):
    folder.mkdir(exist_ok=True)
    lines = [f"{number}\t{wnid}\tname {number}" for number, wnid in enumerate(wnids)]
    (folder / "classes.txt").write_text("\n".join(lines) + "\n")


def test_imagenet_of_some_classes(tmp_path):
    write_classes(tmp_path)
    chosen = (WNIDS[7], WNIDS[993])
    write_folder(tmp_path / "train", 10, size=(80, 90), classes=chosen, kind="JPEG")
    write_folder(tmp_path / "val", 3, size=(80, 90), classes=chosen, kind="JPEG")
    made = task("imagenet", data=tmp_path, validation=4, calibration=4)
    assert sizes(made) == {"train": 12, "validation": 4, "calibration": 4, "test": 6}
    assert (made.num_classes, made.labels[993]) == (1000, "name 993")
    assert set(made.splits["test"].labels.tolist()) == {7, 993}
    assert made.preprocess.mean == (0.485, 0.456, 0.406)


def test_imagenet_of_unknown_classes(tmp_path):
    write_folder(tmp_path / "val", 2, classes=WNIDS[:3])
    with pytest.raises(DataError, match=r"has 3 of 1000 classes.*classes.txt"):
        task("imagenet", data=tmp_path)
    write_folder(tmp_path / "val", 2, classes=("cat",))
    with pytest.raises(DataError, match=r"'cat' is no wnid .*task image_folder"):
        task("imagenet", data=tmp_path)
    write_classes(tmp_path, WNIDS[:10])
    with pytest.raises(DataError, match="10 classes; it must list all 1000"):
        task("imagenet", data=tmp_path)
    (tmp_path / "classes.txt").write_text("tench\n")
    with pytest.raises(DataError, match="line 1: 'tench'; expected the number 0"):
        task("imagenet", data=tmp_path)


def test_imagenet_parquet_without_training_part(tmp_path):
    write_parquet(tmp_path / "val.parquet", images(30, size=(70, 90)), labels_of(30), image="image")
    made = task("imagenet", data=tmp_path / "val.parquet")
    assert sizes(made) == {"test": 30}
    asked = task("imagenet", data=tmp_path, calibration=10)
    assert sizes(asked) == {"calibration": 10, "test": 20}
    rows = np.concatenate([split.rows for split in asked.splits.values()])
    assert sorted(rows.tolist()) == list(range(30))
