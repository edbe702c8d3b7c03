"""SVHN's MATLAB files."""

import numpy as np
import pytest
from scipy.io import savemat
from task_samples import images, labels_of

from lianzhi.errors import DataError
from lianzhi.tasks import task


def write(folder, *, wrong=None):
    for part, count in (("train", 40), ("test", 20)):
        arrays = {
            "X": images(count).transpose(1, 2, 3, 0),
            "y": np.where(labels_of(count) == 0, 10, labels_of(count))[:, None],
        }
        savemat(folder / f"{part}_32x32.mat", {**arrays, **(wrong or {})})
    return folder


def test_pixels_and_the_digit_zero(tmp_path):
    made = task("svhn", data=write(tmp_path), validation=5, calibration=5)
    batch = next(iter(made.batches("test", 20)))
    assert batch.labels.tolist() == labels_of(20).tolist()
    assert np.array_equal(batch.inputs.numpy(), made.preprocess.normalize(images(20).transpose(0, 3, 1, 2)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"X": np.zeros((32, 32, 3, 4))}, "X is float64 of shape"),
        ({"X": np.zeros((28, 28, 3, 4), np.uint8)}, r"X is uint8 of shape \(28, 28, 3, 4\)"),
        (
            {"y": np.full((40, 1), 12), "X": np.zeros((32, 32, 3, 40), np.uint8)},
            "row 0: label 12 is outside the class range 0 to 9",
        ),
    ],
)
def test_wrong_arrays(tmp_path, wrong, message):
    with pytest.raises(DataError, match=message):
        task("svhn", data=write(tmp_path, wrong=wrong))


def test_damaged_and_missing_files(tmp_path):
    write(tmp_path)
    file = tmp_path / "test_32x32.mat"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(DataError, match=r"not a readable MATLAB file|has no arrays"):
        task("svhn", data=tmp_path)
    file.unlink()
    with pytest.raises(DataError, match=r"test_32x32.mat: no such file"):
        task("svhn", data=tmp_path)
    (tmp_path / "train_32x32.mat").unlink()
    with pytest.raises(DataError, match="holds no SVHN"):
        task("svhn", data=tmp_path)
