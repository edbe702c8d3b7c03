"""The machine that reads a pickle as data: what Python writes is read back; what would run, allocate or hang is refused."""

from __future__ import annotations

import builtins
import collections
import io
import os
import pickle
import random
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lianzhi.errors import ArtifactError
from lianzhi.models.checkpoints import pickled
from lianzhi.models.checkpoints.pickled import read_pickle

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**127), 2**127 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda values: (
        st.lists(values)
        | st.tuples(values)
        | st.tuples(values, values, values, values)
        | st.dictionaries(st.text() | st.integers(1 - 2**63, 2**63 - 1), values)
    ),
    max_leaves=30,
)


@settings(deadline=None)
@given(PLAIN, st.integers(3, 5))
def test_plain_values_come_back(value, protocol):
    assert read_pickle(pickle.dumps(value, protocol), "a") == value


def test_protocol_2_and_long_containers_and_shared_values():
    row = [1.5, "x"]
    value = {"a": row, "b": row, "long": list(range(3000)), "wide": {str(i): i for i in range(3000)}}
    value["ordered"] = collections.OrderedDict(x=1)
    for protocol in (2, 3, 4, 5):
        read = read_pickle(pickle.dumps(value, protocol), "a")
        assert read == value
        assert read["a"] is read["b"]
    unframed = io.BytesIO()
    pickle._Pickler(unframed, 4).dump(value)  # Python's own, whose instructions are not all the same
    assert read_pickle(unframed.getvalue(), "a") == value


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("code", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?", "c8"])
@pytest.mark.parametrize("size", [1, 40_000])
def test_arrays_come_back(protocol, code, size):
    rows = (np.arange(size * 6) % 100).astype(code).reshape(size, 2, 3)
    for one in (rows, np.asfortranarray(rows), rows[:0], rows[0, 0, 0:1].reshape(())):
        if protocol == 2:
            with pytest.raises(ArtifactError, match=r"names '_codecs\.encode'"):
                read_pickle(pickle.dumps(one, protocol), "a")
            continue
        found = read_pickle(pickle.dumps(one, protocol), "a").tensor
        assert found.is_contiguous()
        assert found.numpy().dtype == one.dtype
        assert np.array_equal(found.numpy(), one)


class Call:
    """Pickles as a call of anything."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


class Stateful:
    """Pickles as an object with a state."""

    def __init__(self, state: object) -> None:
        self.state = state

    def __reduce__(self) -> tuple[object, ...]:
        return collections.OrderedDict, (), self.state


ATTACKS = {
    "os.system": (Call(os.system, ("touch ran",)), f"names '{os.system.__module__}.system'"),
    "eval": (Call(eval, ("open('ran', 'w')",)), "names 'builtins.eval'"),
    "exec": (Call(exec, ("open('ran', 'w')",)), "names 'builtins.exec'"),
    "getattr": (Call(builtins.getattr, ("os", "system")), "names 'builtins.getattr'"),
    "open": (Call(open, ("ran", "w")), "names"),
    "a table with arguments": (
        Call(collections.OrderedDict, ([("a", 1)],)),
        "calls 'collections.OrderedDict' with arguments",
    ),
    "a table with a state that is no dict": (Stateful([1]), "sets a state of type list"),
    "a class": (collections.Counter(a=1), "names 'collections.Counter'"),
    "numpy": (np.float64(1.0), "scalar'"),
    "torch": (torch.ones(1), "names 'torch"),
    "a set": ({1, 2}, "has the pickle instruction EMPTY_SET"),
    "bytearray": (bytearray(b"x"), "has the pickle instruction BYTEARRAY8"),
    "a huge number": (1 << 400, "an integer of"),
    "a tuple as a key": ({(1, 2): 3}, "a key is neither a name nor a number of 63 bits"),
}


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_no_plain_value_is_refused_by_name(name, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    value, message = ATTACKS[name]
    if name == "bytearray" and protocol == 4:
        message = "names 'builtins.bytearray'"
    with pytest.raises(ArtifactError) as error:
        read_pickle(pickle.dumps({"data": value}, protocol), "a/pickled_data")
    assert message in str(error.value)
    assert str(error.value).startswith("a/pickled_data ")
    assert not list(tmp_path.iterdir())


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def kind(code: str) -> bytes:
    return b"cnumpy\ndtype\n" + text(code) + b"\x89\x88\x87R"


def array(shape: bytes, code: str, values: bytes) -> bytes:
    """An array with a state, and the end of the pickle."""
    typed = kind(code) + b"(K\x03" + text("<") + b"NNNK\x00K\x00K\x00tb"
    return ARRAY + b"(K\x01" + shape + typed + b"\x89C" + bytes([len(values)]) + values + b"tb."


TENSOR = b"coneflow\nTensor\n)\x81"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
ARRAY = RECONSTRUCT + b"cnumpy\nndarray\nK\x00\x85C\x01b\x87R"
BROKEN = {
    b"": "it is cut off",
    b"\x80\x04": "it is cut off",
    b"\x80\x04.": "it does not end with one value",
    b"\x80\x04NN.": "it does not end with one value",
    b"\x80\x04N.N": "it does not end with one value",
    b"\x80\x04(N.": "it does not end with one value",
    b"\x80\x01N.": "protocol 1",
    b"\x80\xffN.": "protocol 255",
    b"\x80\x04s.": "a value is missing",
    b"\x80\x04NNNs.": "a dict is missing",
    b"\x80\x04}Ne.": "a mark is missing",
    b"\x80\x04}(Nu.": "a key without a value",
    b"\x80\x04}(K\x01NK\x01Nu.": "the key 1 stands twice",
    b"\x80\x04Na.": "a list is missing",
    b"\x80\x04q\x00.": "a value is missing",
    b"\x80\x04h\x07.": "refers to a value that is not there",
    b"\x80\x04X\x01\x00\x00\x00\xff.": "a text is not UTF-8",
    b"\x80\x04\x8d" + b"\xff" * 8 + b"abc.": "it is cut off",
    b"\x80\x04B\xff\xff\xff\xffabc.": "it is cut off",
    b"\x80\x04\x00.": "the byte 0 is no instruction",
    b"\x80\x04conefl": "a name does not end",
    b"\x80\x04NN\x93.": "a name is not text",
    b"\x80\x04P1\n.": "has the pickle instruction PERSID",
    b"\x80\x04NQ.": "has the pickle instruction BINPERSID",
    b"\x80\x04\x82\x01.": "has the pickle instruction EXT1",
    b"\x80\x04(ios\nsystem\n.": "has the pickle instruction INST",
    b"\x80\x04(coneflow\nTensor\no.": "has the pickle instruction OBJ",
    b"I" + b"9" * 100_000 + b"\n.": "has the pickle instruction INT",
    b"\x80\x04coneflow\nTensor\n)R.": "calls 'oneflow.Tensor'",
    b"\x80\x04ccollections\nOrderedDict\n)\x81.": "calls 'collections.OrderedDict'",
    b"\x80\x04" + TENSOR + b")R.": "calls a Reference",
    b"\x80\x04K\x01)R.": "calls a int",
    b"\x80\x04coneflow\nTensor\nK\x01\x85\x81.": "calls 'oneflow.Tensor' with arguments",
    b"\x80\x04" + TENSOR + b"}b.": "sets a tensor's state to",
    b"\x80\x04" + TENSOR + b"}" + text("path") + b"K\x01sb.": "sets a tensor's state to 'path'",
    b"\x80\x04" + TENSOR + b"}" + text("data") + text("x") + b"sb.": "sets a tensor's state to 'data'",
    b"\x80\x04"
    + TENSOR
    + 2 * (b"}" + text("path") + text("tensor_0") + b"sb")
    + b".": "sets a tensor's state",
    b"\x80\x04N}b.": "sets the state of something that is no tensor",
    b"\x80\x04coneflow\nTensor\n}b.": "sets the state of something that is no tensor",
    b"\x80\x04Nb.": "sets a state of type NoneType",
    b"\x80\x04coneflow\nsave\n.": "names 'oneflow.save'",
    b"\x80\x04coneflow.nn\nTensor\n.": "names 'oneflow.nn.Tensor'",
    b"\x80\x04"
    + RECONSTRUCT
    + b"cnumpy\nndarray\nK\x00\x85C\x01B\x87R.": "with other arguments than NumPy writes",
    b"\x80\x04" + RECONSTRUCT + b"coneflow\nTensor\nK\x00\x85C\x01b\x87R.": "of another class than ndarray",
    b"\x80\x04" + RECONSTRUCT + b")R.": "with other arguments than NumPy writes",
    b"\x80\x04" + RECONSTRUCT + b")\x81.": "calls 'numpy.core.multiarray._reconstruct'",
    b"\x80\x04cnumpy\nndarray\n)R.": "calls 'numpy.ndarray'",
    b"\x80\x04" + kind("O8") + b".": "calls 'numpy.dtype' for values of type 'O8'",
    b"\x80\x04" + kind("f4") + b"K\x03" + text(">") + b"\x86b.": "an array's values are not little-endian",
    b"\x80\x04" + ARRAY + b")b.": "an array's state is not (1, shape, type, order, values)",
    b"\x80\x04" + array(b"K\x02\x85", "f4", bytes(4)): "an array of shape (2,) and type float32 has 4 bytes",
    b"\x80\x04"
    + array(b"J\xff\xff\xff\xff\x85", "f4", b""): "an array of shape (-1,) and type float32 has 0 bytes",
    b"\x80\x04" + array(b"J\xff\xff\xff\x7f" * 3 + b"\x87", "f8", b""): "an array of shape (2147483647, ",
    b"\x80\x04" + array(b"]\x85", "f4", bytes(4)): "an array's shape is no tuple of numbers",
    b"\x80\x04"
    + array(b"(" + b"K\x01" * 33 + b"t", "f4", bytes(4)): "an array's shape is no tuple of numbers",
    b"\x80\x04" + array(b"K\x01\x85", "b1", b"\x02"): "a bool is neither 0 nor 1",
    b"\x80\x04"
    + TENSOR
    + b"}("
    + text("data")
    + ARRAY
    + text("dtype")
    + b"K\x02ub.": "sets a tensor's state to 'data', 'dtype'",
}


@pytest.mark.parametrize("data", BROKEN, ids=range(len(BROKEN)))
def test_what_is_broken_is_named(data):
    with pytest.raises(ArtifactError) as error:
        read_pickle(data, "a")
    assert BROKEN[data] in str(error.value)


def test_no_instruction_takes_more_memory_than_its_bytes_do():
    """Python's own reader makes room for the four thousand million values that this one says it will remember."""
    tracemalloc.start()
    assert read_pickle(b"\x80\x04Nr\xff\xff\xff\xff.", "a") is None
    with pytest.raises(ArtifactError, match="it is cut off"):
        read_pickle(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40), "a")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_depth_costs_no_stack():
    nested = b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b"."
    value = read_pickle(nested, "a")
    assert type(value) is list
    assert len(value) == 1
    itself = read_pickle(b"\x80\x04]q\x00h\x00a.", "a")
    assert itself[0] is itself


def test_the_number_of_instructions_is_bounded(monkeypatch):
    monkeypatch.setattr(pickled, "MAX_INSTRUCTIONS", 1000)
    assert read_pickle(b"\x80\x04" + b"](" + b"}" * 900 + b"e.", "a") == [{}] * 900
    with pytest.raises(ArtifactError, match="more than 1,000 instructions"):
        read_pickle(b"\x80\x04](" + b"}" * 1000 + b"e.", "a")


def test_shared_values_that_would_be_endless_are_one_value():
    """A thousand lists, each of ten of the one before: ten to the thousandth things to whoever walks them."""
    inner = b"]r\x00\x00\x00\x00"
    level = b"](" + 10 * b"j\x00\x00\x00\x00" + b"er\x00\x00\x00\x00"
    value = read_pickle(b"\x80\x04(" + inner + 1000 * level + b"t.", "a")
    assert len(value) == 1001
    assert all(one is value[-2] for one in value[-1])


def test_any_damage_is_refused_or_a_plain_value():
    good = pickle.dumps(
        {"protocol_version": 1, "data": collections.OrderedDict(a=[1, 2.5, "x", b"y", None, True])}
    )
    draw = random.Random(0)
    outcomes = collections.Counter()
    for _ in range(5000):
        data = bytearray(good)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        data = data[: draw.randrange(len(data))] if draw.random() < 0.2 else data
        try:
            read_pickle(bytes(data), "a")
            outcomes["read"] += 1
        except ArtifactError:
            outcomes["refused"] += 1
    assert outcomes["read"] > 100
    assert outcomes["refused"] > 1000


ONE_FILE = (Path(__file__).parent / "data" / "oneflow" / "one_file").read_bytes()


def test_a_pickle_of_tensors_is_refused_at_any_length():
    for length in range(len(ONE_FILE)):
        with pytest.raises(ArtifactError, match="is damaged, or no pickle"):
            read_pickle(ONE_FILE[:length], "a")


def test_any_damage_of_a_pickle_of_tensors_is_refused_or_leaves_no_more_than_was_there():
    draw, outcomes = random.Random(0), collections.Counter()
    for _ in range(1000):
        damaged = bytearray(ONE_FILE)
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        try:
            found = read_pickle(bytes(damaged), "a").get("data", {}).values()
            tensors = {
                id(one.tensor): one.tensor.nbytes for one in found if getattr(one, "tensor", None) is not None
            }
            assert sum(tensors.values()) <= len(ONE_FILE)
            outcomes["read"] += 1
        except ArtifactError:
            outcomes["refused"] += 1
    assert outcomes["read"] > 50
    assert outcomes["refused"] > 200
