"""Names in the source that is written: of variables, and of the parts that hold parameters.

Names of layers come from files that somebody else may have made. What stands in the source as a name is an ASCII
identifier that means nothing else there; everything else stands as a quoted string.
"""

from __future__ import annotations

import builtins
import functools
import keyword
import re
from collections.abc import Iterable

from torch import nn

from lianzhi.deploy.oneflow.code.helpers import FUNCTIONS

_OURS = frozenset(
    {"flow", "F", "math", "self", "block", "Part", "Model", "PARAMETERS", "BUFFERS", "TIES", *FUNCTIONS}
)
_MORE = frozenset(
    {"to_consistent", "to_global", "to_local", "hold"}
)  # what a part has beyond PyTorch's modules
_WORDS = frozenset(keyword.kwlist) | frozenset(keyword.softkwlist) | frozenset(dir(builtins))


def is_plain(name: str) -> bool:
    """Whether a name can be that of a variable: an identifier that has no other meaning in the source.

    >>> is_plain("conv1"), is_plain("0"), is_plain("x; import os"), is_plain("class"), is_plain("flow")
    (True, False, False, False, False)
    """
    return _identifier(name) and name not in _OURS and name not in _WORDS


def _identifier(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,100}", name) is not None and not keyword.iskeyword(name)


@functools.cache
def _of_modules() -> frozenset[str]:
    return frozenset(dir(nn.ModuleDict())) | _MORE


def part(name: str) -> str:
    """How a part or tensor of this name is reached from the part that holds it.

    >>> part("conv1"), part("0"), part("forward"), part("a'b")
    ('.conv1', '["0"]', "['forward']", '["a\\'b"]')
    """
    if is_number(name):
        return f'["{name}"]'
    if _identifier(name) and not name.startswith("__") and name not in _of_modules():
        return f".{name}"
    return f"[{name!r}]"


def path(names: Iterable[str]) -> str:
    """How a part is reached from the one before it, step by step.

    >>> "self" + path(["layer1", "0", "conv1"])
    'self.layer1["0"].conv1'
    """
    return "".join(map(part, names))


def tensor(start: str, names: list[str]) -> str:
    """How a tensor is reached; `flow.nn.Graph` takes one whose name is a number only as an attribute.

    >>> tensor("self", ["layer1", "0", "weight"]), tensor("self", ["scales", "0"])
    ('self.layer1["0"].weight', 'getattr(self.scales, "0")')
    """
    if not is_number(names[-1]):
        return start + path(names)
    return f'getattr({start}{path(names[:-1])}, "{names[-1]}")'


def is_number(name: str) -> bool:
    """Whether a name is the place of a part in a list."""
    return re.fullmatch(r"0|[1-9][0-9]{0,8}", name) is not None


class Names:
    """Gives variables their names; a name is free again when the value is read no more."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def keep(self, wanted: str) -> str:
        """A name that is never given again: as wanted, if it is plain and free."""
        return self.take([wanted if is_plain(wanted) or wanted == "input" else "value"])

    def take(self, pool: list[str]) -> str:
        """The first free name of the pool; with a number behind it if there is none."""
        number = 1
        while True:
            for name in pool:
                numbered = name if number == 1 else f"{name}_{number}"
                if numbered not in self._taken:
                    self._taken.add(numbered)
                    return numbered
            number += 1

    def free(self, name: str) -> None:
        """Let the name be given again."""
        self._taken.discard(name)
