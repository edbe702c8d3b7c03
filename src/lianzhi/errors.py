"""The project's errors: one small tree.

A message says what happened, names the layer, key or file (with shapes where there are any), and says
what to do about it. Every one of them ends a command with exit code 2: the call, its data or its machine
has to change before the same call can work.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

_LISTED = 4


class LianzhiError(Exception):
    """Base of everything that Lianzhi raises on purpose."""

    exit_code = 2


class RecipeError(LianzhiError):
    """A recipe, a step's option or a command's argument is wrong."""


class DataError(LianzhiError):
    """Data is missing, damaged, of the wrong shape, or out of range."""


class GraphError(LianzhiError):
    """A model cannot be captured, or a change to its graph cannot be made."""


class ArtifactError(LianzhiError):
    """A saved model or weights file is damaged, hostile, of a newer format, or cannot be written."""


class TargetError(LianzhiError):
    """A runtime is not installed, or cannot run what it was given."""


class TrainingError(LianzhiError):
    """Training cannot go on (the loss is NaN, say); the last good checkpoint is kept."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, else the list of known names.

    >>> did_you_mean("ration", ["ratio", "scope"])
    "; did you mean 'ratio'?"
    >>> did_you_mean("zzz", ["ratio", "scope"])
    '; known: ratio, scope'
    """
    known = sorted(known)
    near = closest(name, known)
    if near is not None:
        return f"; did you mean '{near}'?"
    return f"; known: {', '.join(known)}" if known else ""


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one, if one is like it at all.

    >>> closest("ration", ["ratio", "scope"]), closest("zzz", ["ratio", "scope"])
    ('ratio', None)
    """
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return near[0] if near else None


def listed(names: Iterable[Any]) -> str:
    """A few names, and how many more there are.

    >>> listed(["a", "b", "c", "d", "e", "f"])
    "'a', 'b', 'c', 'd' and 2 more"
    """
    names = list(names)
    shown = ", ".join(f"'{name!s:.80}'" for name in names[:_LISTED])
    return shown + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
