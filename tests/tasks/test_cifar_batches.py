"""CIFAR's pickled batches: read as Python 2 and 3 wrote them, and never run."""

import pickle

import numpy as np
import pytest
from task_samples import images, labels_of

from lianzhi.errors import DataError
from lianzhi.tasks import task
from lianzhi.tasks.readers.cifar_batches import read_dict, read_part

SMALL = {"validation": 10, "calibration": 10}


def rows(count, seed=0):
    return np.ascontiguousarray(images(count, seed=seed).transpose(0, 3, 1, 2)).reshape(count, 3072)


def as_python_2(data, labels, key=b"labels"):
    """The opcodes that Python 2's cPickle wrote: byte strings (U, T), an array by reconstruct and state."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    size = len(data).to_bytes(2, "little")
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        + b"(K\x01M" + size + b"M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + b"T" + data.nbytes.to_bytes(4, "little") + data.tobytes() + b"tb"
    )  # fmt: skip
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return (
        b"\x80\x02}("
        + text(b"batch_label")
        + text(b"one")
        + text(key)
        + numbers
        + text(b"data")
        + array
        + b"u."
    )


def write(
    folder,
    dump,
    *,
    key=b"labels",
    names=("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"),
):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).write_bytes(dump(rows(20, number), labels_of(20).tolist(), key))
    return folder


def python_3(protocol, order="C"):
    return lambda data, labels, key: pickle.dumps(
        {key: labels, b"data": np.asarray(data, order=order)}, protocol
    )


@pytest.mark.parametrize("dump", [as_python_2, python_3(2), python_3(4), python_3(2, "F")])
def test_the_same_pixels(tmp_path, dump):
    write(tmp_path / "cifar-10-batches-py", dump)
    made = task("cifar10", data=tmp_path, **SMALL)
    assert (made.size("train"), made.size("test")) == (80, 20)
    batch = next(iter(made.batches("test", 20)))
    expected = made.preprocess.normalize(rows(20, 5).reshape(-1, 3, 32, 32))
    assert np.array_equal(batch.inputs.numpy(), expected)
    assert batch.labels.tolist() == labels_of(20).tolist()


def test_cifar100(tmp_path):
    write(tmp_path / "cifar-100-python", as_python_2, key=b"fine_labels", names=("train", "test"))
    made = task("cifar100", data=tmp_path, validation=4, calibration=0)
    assert (made.num_classes, made.size("train"), made.has("calibration")) == (100, 16, False)


class Evil:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def test_code_in_a_pickle_does_not_run(tmp_path):
    import os

    witness = tmp_path / "witness"
    for number, evil in enumerate(
        [
            Evil(os.system, f"touch {witness}"),
            Evil(eval, f"open({str(witness)!r}, 'w')"),
            Evil(getattr, Evil(__import__, "os"), "system"),
            Evil(np.load, str(witness)),
            Evil(np.frombuffer, b"abc"),
        ]
    ):
        file = tmp_path / f"evil{number}"
        for protocol in (0, 2, 5):
            file.write_bytes(pickle.dumps({b"data": evil, b"labels": [0]}, protocol))
            with pytest.raises(DataError, match="refused: not a CIFAR batch"):
                read_dict(file)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a CIFAR batch"),
        (as_python_2(rows(3), [0, 1, 2])[:5000], "not a CIFAR batch"),
        (pickle.dumps([1, 2]), "holds a list, not a dict"),
        (pickle.dumps({b"labels": [0]}), "has no 'data' among labels"),
        (pickle.dumps({b"labels": [0], b"data": b"xx"}), "not a NumPy array"),
        (pickle.dumps({b"labels": [0], b"data": np.zeros((1, 3072), np.int16)}, 2), "expected u1 of shape"),
        (pickle.dumps({b"labels": [0], b"data": np.zeros((1, 100), np.uint8)}, 2), r"u1 of shape \(1, 100\)"),
        (pickle.dumps({b"labels": 3, b"data": np.zeros((1, 3072), np.uint8)}, 2), "'labels' is a int"),
        (pickle.dumps({b"labels": ["a"], b"data": np.zeros((1, 3072), np.uint8)}, 2), "class number"),
        (as_python_2(rows(3), [0, 1, 2]).replace(b"(K\x01M\x03\x00", b"(K\x01M\x04\x00"), "its shape"),
    ],
)
def test_damaged_batches(tmp_path, content, message):
    file = tmp_path / "data_batch_1"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_part([file], "labels")
    assert str(file) in str(caught.value)


def test_a_missing_batch(tmp_path):
    write(tmp_path, as_python_2)
    (tmp_path / "data_batch_4").unlink()
    with pytest.raises(DataError, match="data_batch_4: no such file"):
        task("cifar10", data=tmp_path)
