"""What the reader of docstrings changes in them before they become pages."""

from __future__ import annotations

from fences import fenced
from griffe import Extension, Object


class Doctests(Extension):
    """Fence the doctests of every docstring."""

    def on_object(self, *, obj: Object, **_: object) -> None:
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)
