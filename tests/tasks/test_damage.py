"""Files with a few bytes changed are read, or refused with `DataError`; nothing else is raised."""

import contextlib
import gzip
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat
from task_samples import encode, idx, images, labels_of, write_parquet
from test_cifar_batches import as_python_2, rows

from lianzhi.errors import DataError
from lianzhi.tasks.readers import cifar_batches, npz, oneflow_json, parquet, svhn_mat
from lianzhi.tasks.readers import decode as decoder
from lianzhi.tasks.readers import idx as idx_reader


def read_table(file):
    table = parquet.read([file])
    return [table.encoded(row) for row in range(len(table))]


def read_image(file):
    opened = decoder.from_bytes(lambda row: file.read_bytes())
    return decoder.decode(opened, 0, lambda row: str(file), size=(8, 8), channels=3)


READERS = {
    "batch": lambda file: cifar_batches.read_part([file], "labels"),
    "idx.gz": lambda file: idx_reader.read(file, 3),
    "npz": lambda file: npz.read(file, None, None),
    "json": oneflow_json.read,
    "parquet": read_table,
    "mat": svhn_mat.read_part,
    "png": read_image,
    "jpeg": read_image,
}


def write(file, kind):
    if kind == "batch":
        file.write_bytes(as_python_2(rows(2), [0, 1]))
    elif kind == "idx.gz":
        file.write_bytes(gzip.compress(idx(images(3, size=(8, 8), channels=1)[..., 0])))
    elif kind == "npz":
        np.savez_compressed(file, x=np.ones((10, 3)), y=np.arange(10))
    elif kind == "json":
        file.write_text(json.dumps({"data": [1, 2, 3, 4], "label": [0, 1], "shape": [2]}))
    elif kind == "parquet":
        write_parquet(file, images(5, size=(8, 8)), labels_of(5))
    elif kind == "mat":
        savemat(file, {"X": images(4).transpose(1, 2, 3, 0), "y": labels_of(4)[:, None]}, do_compression=True)
    else:
        file.write_bytes(encode(images(1, size=(8, 8))[0], kind.upper()))
    return file


@pytest.mark.parametrize("kind", READERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file(tmp_path, kind, data):
    file = write(tmp_path / f"file.{kind}", kind)
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    with contextlib.suppress(DataError):
        READERS[kind](file)


@pytest.mark.parametrize("kind", READERS)
def test_a_whole_file(tmp_path, kind):
    READERS[kind](write(tmp_path / f"file.{kind}", kind))
