"""A pickle read as data: a small machine that knows what a checkpoint needs, and no call.

A pickle is a program. Python's own reader imports what it names, calls it, and allocates what it asks for; a reader with
a list of allowed names still does the last. This one is a list of some thirty instructions over plain values (text,
numbers, lists, tuples, dicts): the few names that OneFlow writes become markers, NumPy's arrays become tensors
(`pickled_arrays.py`), and every other name or instruction ends in an error that names it.

The format: https://github.com/python/cpython/blob/main/Lib/pickletools.py (protocols 2 to 5).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NoReturn

from torch import Tensor

from lianzhi.errors import ArtifactError
from lianzhi.models.checkpoints.pickled_arrays import CALLS, CLASSES, PLACES, Array, Kind, Place, tensor_of

MAX_INSTRUCTIONS = 1 << 21  # a tensor takes ten, and with an array in it fifty
MAX_NUMBER = 16  # bytes of an integer
COPIED = 1 << 16  # longer bytes are a view of the pickle

TENSORS = {
    ("oneflow", "Tensor"),
    ("oneflow.nn", "Parameter"),
    ("oneflow._oneflow_internal", "Tensor"),  # until 0.7
    ("oneflow._oneflow_internal.nn", "Parameter"),
}
TABLES = {("collections", "OrderedDict")}
KNOWN = TENSORS | TABLES | PLACES | CLASSES | CALLS.keys()


class Reference:
    """A tensor as a pickle has it: the name of the folder that holds its data, or the data themselves."""

    __slots__ = ("path", "tensor")

    def __init__(self) -> None:
        self.path: str | None = None
        self.tensor: Tensor | None = None


class _Name:
    """What a pickle names instead of holding it: a class."""

    __slots__ = ("name",)

    def __init__(self, module: str, name: str) -> None:
        self.name = (module, name)


def read_pickle(data: bytes, source: str) -> Any:
    """The value in a pickle: text, bytes, numbers, lists, tuples and dicts, and a `Reference` a tensor of OneFlow.

    >>> import pickle
    >>> read_pickle(pickle.dumps({"epoch": 3, "rates": [0.1, 0.01]}), "a.pkl")
    {'epoch': 3, 'rates': [0.1, 0.01]}
    >>> read_pickle(pickle.dumps(print), "a.pkl")                       # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    lianzhi.errors.ArtifactError: a.pkl names 'builtins.print', which is no part of a checkpoint of tensors and could run code...

    Values may be shared, and a list or dict may hold itself: walk no deeper than you know.

    Raises:
        ArtifactError: a name or an instruction that no checkpoint of tensors needs, or a damaged pickle; `source`
            stands in the message.
    """
    return _Machine(data, source).run()


class _Machine:
    def __init__(self, data: bytes, source: str) -> None:
        self.data, self.source, self.position = data, source, 0
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MAX_INSTRUCTIONS):
            code = self.take(1)
            if code == b".":
                if self.outer or len(self.stack) != 1 or self.position != len(self.data):
                    self.damaged("it does not end with one value")
                return self.stack[0]
            step = _STEPS.get(code)
            if step is None:
                self.refuse_instruction(code)
            step(self)
        self.damaged(f"it has more than {MAX_INSTRUCTIONS:,} instructions")

    # reading

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.data):
            self.damaged("it is cut off")
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def blob(self, length: int) -> bytes | memoryview:
        start = self.position
        if length <= COPIED or start + length > len(self.data):
            return self.take(length)
        self.position = start + length
        return memoryview(self.data)[start : self.position]

    def text(self, length: int) -> str:
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            self.damaged("a text is not UTF-8")

    def line(self) -> str:
        end = self.data.find(b"\n", self.position, self.position + 1000)
        if end < 0:
            self.damaged("a name does not end")
        text = self.text(end - self.position)
        self.position += 1
        return text

    # the stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            self.damaged("a value is missing")
        return self.stack.pop()

    def pop_marked(self) -> list[Any]:
        if not self.outer:
            self.damaged("a mark is missing")
        values, self.stack = self.stack, self.outer.pop()
        return values

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            self.damaged(f"a {kind.__name__} is missing")
        return self.stack[-1]

    # errors

    def damaged(self, reason: str) -> NoReturn:
        raise ArtifactError(f"{self.source} is damaged, or no pickle: {reason}; restore it")

    def refuse(self, what: str) -> NoReturn:
        raise ArtifactError(
            f"{self.source} {what}, which is no part of a checkpoint of tensors and could run code; nothing was run. "
            f"Save the weights alone: oneflow.save(model.state_dict(), folder)"
        )

    def refuse_instruction(self, code: bytes) -> NoReturn:
        import pickletools

        known = next((one for one in pickletools.opcodes if one.code == code.decode("latin-1")), None)
        if known is None:
            self.damaged(f"the byte {code[0]} is no instruction")
        self.refuse(f"has the pickle instruction {known.name}")

    # instructions that make something

    def protocol(self) -> None:
        version = self.number(1)
        if not 2 <= version <= 5:
            self.damaged(f"protocol {version} (2 to 5 are read)")

    def find(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            self.damaged("a name is not text")
        if (module, name) not in KNOWN:
            self.refuse(f"names '{module:.100}.{name:.100}'")
        self.push(_Name(module, name))

    def find_on_stack(self) -> None:
        name, module = self.pop(), self.pop()
        self.find(module, name)

    def call(self) -> None:
        """REDUCE: an empty table, or what NumPy's arrays are made of."""
        if len(self.stack) > 1 and type(self.stack[-2]) is _Name and self.stack[-2].name in CALLS:
            arguments, what = self.pop(), self.pop()
            try:
                self.push(CALLS[what.name](arguments))
            except ValueError as error:
                self.refuse(f"calls '{'.'.join(what.name)}' {error}")
        else:
            self.make(dict.fromkeys(TABLES, dict))

    def make(self, kinds: dict[tuple[str, str], Callable[[], Any]]) -> None:
        """Something empty, of a class without arguments."""
        arguments, what = self.pop(), self.pop()
        if type(what) is not _Name:
            self.refuse(f"calls a {type(what).__name__}")
        if what.name not in kinds:
            self.refuse(f"calls '{'.'.join(what.name)}'")
        if type(arguments) is not tuple or arguments:
            self.refuse(f"calls '{'.'.join(what.name)}' with arguments")
        self.push(kinds[what.name]())

    def build(self) -> None:
        """The state of a tensor is its folder's name or its data; that of a table (its `_metadata`) is not needed."""
        state, built = self.pop(), self.stack[-1] if self.stack else None
        if isinstance(built, (Array, Kind, Place)):
            try:
                built.build(state)
            except ValueError as error:
                self.damaged(str(error))
            return
        if type(state) is not dict:
            self.refuse(f"sets a state of type {type(state).__name__}")
        if type(built) is dict:
            return
        if type(built) is not Reference:
            self.refuse("sets the state of something that is no tensor")
        is_path = state.keys() == {"path"} and type(state["path"]) is str
        tensor = None if is_path else tensor_of(state)
        if built.path is not None or built.tensor is not None or not (is_path or tensor is not None):
            self.refuse(f"sets a tensor's state to {_keys(state)}")
        built.path, built.tensor = state.get("path"), tensor

    def set_items(self, items: list[Any]) -> None:
        table = self.top(dict)
        if len(items) % 2:
            self.damaged("a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str and not (type(key) is int and key.bit_length() < 64):
                self.damaged("a key is neither a name nor a number of 63 bits")
            if key in table:
                self.damaged(f"the key {key!r:.80} stands twice")
            table[key] = value

    def extend(self, values: list[Any]) -> None:
        self.top(list).extend(values)

    def remember(self, index: int) -> None:
        if not self.stack:
            self.damaged("a value is missing")
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        if index not in self.memo:
            self.damaged("it refers to a value that is not there")
        self.push(self.memo[index])

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def tuple_of(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(values)))

    def integer(self) -> None:
        size = self.number(1)
        if size > MAX_NUMBER:
            self.damaged(f"an integer of {size} bytes")
        self.push(int.from_bytes(self.take(size), "little", signed=True))


def _keys(state: dict[Any, Any]) -> str:
    return "'" + "', '".join(f"{key!s:.40}" for key in list(state)[:4]) + "'"


_CLASSES: dict[tuple[str, str], Callable[[], Any]] = {
    **dict.fromkeys(TENSORS, Reference),
    **dict.fromkeys(PLACES, Place),
}
_STEPS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": _Machine.protocol,
    b"\x95": lambda m: m.take(8),  # a frame's length
    b"(": _Machine.mark,
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"K": lambda m: m.push(m.number(1)),
    b"M": lambda m: m.push(m.number(2)),
    b"J": lambda m: m.push(int.from_bytes(m.take(4), "little", signed=True)),
    b"\x8a": _Machine.integer,
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    b"\x8c": lambda m: m.push(m.text(m.number(1))),
    b"X": lambda m: m.push(m.text(m.number(4))),
    b"\x8d": lambda m: m.push(m.text(m.number(8))),
    b"C": lambda m: m.push(m.take(m.number(1))),
    b"B": lambda m: m.push(m.blob(m.number(4))),
    b"\x8e": lambda m: m.push(m.blob(m.number(8))),
    b"]": lambda m: m.push([]),
    b"a": lambda m: m.extend([m.pop()]),
    b"e": lambda m: m.extend(m.pop_marked()),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.pop_marked())),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"}": lambda m: m.push({}),
    b"s": lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    b"u": lambda m: m.set_items(m.pop_marked()),
    b"q": lambda m: m.remember(m.number(1)),
    b"r": lambda m: m.remember(m.number(4)),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"h": lambda m: m.recall(m.number(1)),
    b"j": lambda m: m.recall(m.number(4)),
    b"c": lambda m: m.find(m.line(), m.line()),
    b"\x93": _Machine.find_on_stack,
    b"R": _Machine.call,
    b"\x81": lambda m: m.make(_CLASSES),
    b"b": _Machine.build,
}
