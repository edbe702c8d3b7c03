"""NumPy archives and the OneFlow platform's JSON."""

import json
import pickle

import numpy as np
import pytest
import torch
from task_samples import images, labels_of

from lianzhi.errors import DataError, RecipeError
from lianzhi.tasks import task

PIXELS = images(60, size=(9, 7))
NUMBERS = np.random.default_rng(0).standard_normal((60, 5))


def archive(folder, **arrays):
    file = folder / "own.npz"
    np.savez(file, **arrays)
    return file


def everything(made):
    order = np.argsort(np.concatenate([split.rows for split in made.splits.values()]))
    batches = [next(iter(made.batches(name, 1000))) for name in made.splits]
    inputs, labels = (
        torch.cat([getattr(batch, name) for batch in batches])[order] for name in ("inputs", "labels")
    )
    return inputs.numpy(), labels.numpy()


@pytest.mark.parametrize("layout", ["last", "first", "grey", "one"])
def test_images(tmp_path, layout):
    pixels = {
        "last": PIXELS,
        "first": PIXELS.transpose(0, 3, 1, 2),
        "grey": PIXELS[..., 0],
        "one": PIXELS[..., :1],
    }[layout]
    made = task("npz", data=archive(tmp_path, x=pixels, y=labels_of(60, 3)))
    inputs, labels = everything(made)
    planes = PIXELS.transpose(0, 3, 1, 2) if layout in ("last", "first") else PIXELS[:, None, :, :, 0]
    assert np.array_equal(inputs, made.preprocess.normalize(planes))
    assert labels.tolist() == labels_of(60, 3).tolist()
    assert made.num_classes == 3


def test_numbers_are_left_as_they_are(tmp_path):
    made = task("npz", data=archive(tmp_path, data=NUMBERS, label=labels_of(60, 4)[:, None]))
    inputs, labels = everything(made)
    assert np.array_equal(inputs, NUMBERS.astype(np.float32))
    assert labels.tolist() == labels_of(60, 4).tolist()
    assert made.preprocess is None
    assert made.example_inputs.shape == (1, 5)
    augmented = next(iter(made.batches("train", 99, epoch=0, augment=True)))
    assert augmented.inputs.shape == (42, 5)


@pytest.mark.parametrize("style", ["{0}_{1}", "{1}_{0}"])
def test_archives_in_parts(tmp_path, style):
    arrays = {}
    for part, count in (("train", 40), ("val", 10), ("test", 5)):
        arrays[style.format("images", part)] = PIXELS[:count]
        arrays[style.format("labels", part)] = labels_of(count, 2)
    made = task("npz", data=archive(tmp_path, **arrays))
    assert {name: made.size(name) for name in made.splits} == {
        "train": 36,
        "validation": 10,
        "calibration": 4,
        "test": 5,
    }


def test_a_folder_of_archives(tmp_path):
    for part, count in (("train", 40), ("test", 5)):
        np.savez(tmp_path / f"{part}.npz", a=NUMBERS[:count], b=labels_of(count, 2))
    made = task("npz", data=tmp_path, inputs="a", labels="b")
    assert {name: made.size(name) for name in made.splits} == {
        "train": 32,
        "validation": 4,
        "calibration": 4,
        "test": 5,
    }


def poisoned(value):
    numbers = NUMBERS.copy()
    numbers[[13, 20], 2] = value
    return numbers


LABELS = labels_of(60, 3)


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        (
            {"x": poisoned(np.nan), "y": LABELS},
            {},
            r"own.npz \(train\), row 13: NaN or infinite values \(and 1 other rows\)",
        ),
        ({"x": poisoned(np.inf), "y": LABELS}, {}, "row 13: NaN or infinite"),
        ({"x": NUMBERS, "y": LABELS[:50]}, {}, "60 samples and 50 labels"),
        (
            {"x": NUMBERS, "y": np.where(LABELS == 2, 2.5, LABELS)},
            {},
            "row 2: label 2.5 is not a class number",
        ),
        ({"x": NUMBERS, "y": LABELS - 1}, {}, "row 0: label -1 is outside the class range"),
        ({"x": NUMBERS, "y": LABELS}, {"classes": 2}, "row 2: label 2 is outside the class range 0 to 1"),
        (
            {"x_train": NUMBERS, "y_train": LABELS, "x_test": NUMBERS, "y_test": LABELS + 1},
            {},
            r"\(test\), row 2: label 3",
        ),
        (
            {"x_train": NUMBERS, "y_train": LABELS, "x_test": NUMBERS[:, :4], "y_test": LABELS},
            {},
            "differ between the parts",
        ),
        ({"x": NUMBERS[:0], "y": LABELS[:0]}, {}, r"samples of shape \(0, 5\)"),
        (
            {"x_train": NUMBERS, "y_train": LABELS, "x_test": NUMBERS[:0], "y_test": LABELS[:0]},
            {},
            r"\(test\): samples of shape",
        ),
        ({"x": NUMBERS, "z": LABELS}, {}, "arrays x, z; expected x and y"),
        ({"x": np.array(["a"] * 60)[:, None], "y": LABELS}, {}, "expected numbers"),
        ({"x": np.array([{}] * 60), "y": LABELS}, {}, "pickled objects are refused"),
        ({"x": NUMBERS, "y": LABELS[:, None].repeat(2, 1)}, {}, "one class number a sample"),
        ({"x": PIXELS[:, :, :, [0, 1]], "y": LABELS}, {}, "expected 1 or 3 channels"),
        ({"x": PIXELS, "y": LABELS}, {"size": 32}, "images in arrays are not scaled"),
        ({"x": NUMBERS, "y": LABELS}, {"size": 32}, "plain numbers, and size"),
        ({"x": NUMBERS, "y": LABELS}, {"mean": (0.5,)}, "plain numbers, and mean"),
        (
            {"x": PIXELS, "y": LABELS},
            {"mean": (0.5,), "std": (0.5,)},
            "'mean' has 1 values and the images have 3",
        ),
        ({"x": np.zeros((60, 4, 4), np.uint8), "y": LABELS}, {}, "one constant"),
        ({"x": NUMBERS, "y": LABELS}, {"validation": 50, "calibration": 10}, "leaves none to train on"),
        ({"x": NUMBERS, "y": LABELS}, {"inputs": "x"}, "give both"),
        ({"x": NUMBERS, "y": LABELS}, {"inputs": "x", "labels": "u"}, "no array 'u'"),
    ],
)
def test_refused_before_training(tmp_path, arrays, options, message):
    with pytest.raises(DataError, match=message):
        task("npz", data=archive(tmp_path, **arrays), **options)


def test_damaged_archives(tmp_path):
    file = tmp_path / "own.npz"
    with pytest.raises(DataError, match="give data"):
        task("npz")
    with pytest.raises(DataError, match="no such file"):
        task("npz", data=file)
    with pytest.raises(DataError, match=r"holds no train.npz"):
        task("npz", data=tmp_path)
    archive(tmp_path, x=NUMBERS, y=LABELS)
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"rubbish", b"", whole[:60] + b"\xff" * 9 + whole[69:]):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"own.npz"):
            task("npz", data=file)
    np.save(tmp_path / "one.npy", NUMBERS)
    with pytest.raises(DataError, match="a single array"):
        task("npz", data=tmp_path / "one.npy")


def test_a_pickle_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "witness"), "w"))

    (tmp_path / "own.npz").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match="pickled objects are refused"):
        task("npz", data=tmp_path / "own.npz")
    assert not (tmp_path / "witness").exists()


GREY = images(40, size=(4, 4), channels=1)[..., 0]


def dump(folder, content, *, lines=False):
    file = folder / "data.json"
    file.write_text("\n".join(map(json.dumps, content)) if lines else json.dumps(content))
    return file


@pytest.mark.parametrize("shape", [[1, 4, 4], [4, 4, 1], [4, 4], [40, 1, 4, 4]])
@pytest.mark.parametrize("nested", [False, True])
def test_oneflow_object(tmp_path, shape, nested):
    data = GREY.tolist() if nested else GREY.reshape(-1).tolist()
    if shape == [4, 4]:
        data = [[value / 255 for value in row] for row in GREY.reshape(40, 16).tolist()]
    made = task(
        "oneflow_json",
        data=dump(tmp_path, {"data": data, "label": labels_of(40, 4).tolist(), "shape": shape}),
    )
    inputs, labels = everything(made)
    assert labels.tolist() == labels_of(40, 4).tolist()
    if shape == [4, 4]:
        np.testing.assert_allclose(inputs, GREY / 255, atol=1e-6)
        assert made.preprocess is None
    else:
        assert np.array_equal(inputs, made.preprocess.normalize(GREY[:, None]))


@pytest.mark.parametrize("lines", [False, True])
def test_oneflow_records(tmp_path, lines):
    rows = [
        {"data": image.reshape(-1).tolist(), "label": int(n) % 2, "shape": [1, 4, 4]}
        for n, image in enumerate(GREY)
    ]
    made = task("oneflow_json", data=dump(tmp_path, rows, lines=lines))
    inputs, labels = everything(made)
    assert np.array_equal(inputs, made.preprocess.normalize(GREY[:, None]))
    assert labels.tolist() == labels_of(40, 2).tolist()


def test_oneflow_folder(tmp_path):
    for part, count in (("train", 40), ("test", 10)):
        content = {
            "data": GREY[:count].reshape(-1).tolist(),
            "label": labels_of(count, 2).tolist(),
            "shape": [1, 4, 4],
        }
        (tmp_path / f"{part}.json").write_text(json.dumps(content))
    assert task("oneflow_json", data=tmp_path).size("test") == 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected an object"),
        ('{"data": [1, 2', "not JSON"),
        ("3", "expected an object with data, label, shape"),
        ("[]", "expected an object"),
        ("[3]", "row 0: a int; expected an object"),
        ('{"data": [], "label": []}', "no shape; expected the keys"),
        ('{"data": [1, 2, 3], "label": [0], "shape": [2]}', "3 numbers, and 1 samples of shape"),
        ('{"data": [1, 2], "label": [0], "shape": [-2]}', "'shape' is"),
        ('{"data": [1, 2], "label": [0], "shape": "x"}', "'shape' is 'x'"),
        ('{"data": [[1, 2], [3]], "label": [0], "shape": [2]}', "expected numbers"),
        ('{"data": ["a", "b"], "label": [0], "shape": [2]}', "expected numbers"),
        ('{"data": [NaN, 1.0], "label": [0], "shape": [2]}', "row 0: NaN or infinite"),
        (
            '[{"data": [1], "label": 0, "shape": [1]}, {"data": [1, 2], "label": 0, "shape": [2]}]',
            "row 1: shape",
        ),
        ('[{"data": [1], "label": [0, 1], "shape": [1]}]', "row 0: 2 labels"),
        ("[" * 100_000, r"nested too deep|not JSON"),
    ],
)
def test_oneflow_refused(tmp_path, content, message):
    file = tmp_path / "data.json"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        task("oneflow_json", data=file)


def test_unknown_options_are_suggested(tmp_path):
    with pytest.raises(RecipeError, match="unknown option 'limits'; did you mean 'limit'"):
        task("npz", data=tmp_path, limits=5)
    with pytest.raises(RecipeError, match="unknown task 'cifar'; did you mean 'cifar10'"):
        task("cifar")
    with pytest.raises(RecipeError, match="'validation'"):
        task("npz", data=tmp_path, validation=1.5)
    with pytest.raises(RecipeError, match="'validation'"):
        task("npz", data=tmp_path, validation=-5)
