"""`ignore=`: the names, globs and types of layers that a plan leaves whole."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from torch import nn

from lianzhi.errors import RecipeError, did_you_mean

Ignore = str | type[nn.Module] | Sequence[str | type[nn.Module]]


class Ignored:
    """Patterns, checked against a model: one that matches no layer is a `RecipeError`.

    >>> ignored = Ignored(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), ["0", nn.ReLU])
    >>> ignored.touches(["0.weight"]), ignored.touches(["2"])
    (True, False)
    """

    def __init__(self, model: nn.Module, ignore: Ignore) -> None:
        if not isinstance(ignore, (str, type, Iterable)):
            raise RecipeError(f"ignore={ignore!r}: a name, glob or type of layers, or a list of them")
        self.patterns = [ignore] if isinstance(ignore, (str, type)) else list(ignore)
        self.modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
        names = [*self.modules, *(name for name, _ in model.named_parameters(remove_duplicate=False))]
        types = {
            cls.__name__
            for module in self.modules.values()
            for cls in type(module).__mro__
            if issubclass(cls, nn.Module)
        }
        for pattern in self.patterns:
            if not isinstance(pattern, (str, type)):
                raise RecipeError(f"ignore: {pattern!r} is neither a name or glob nor a type of layers")
            if not any(self._matches(pattern, name) for name in names):
                shown = pattern if isinstance(pattern, str) else pattern.__name__
                raise RecipeError(
                    f"ignore: '{shown}' matches no layer{did_you_mean(shown, [*self.modules, *(types - {'Module'})])}"
                )

    def touches(self, names: Iterable[str]) -> bool:
        """Whether one of these layers or tensors, or a module that it is in, is to be left whole."""
        paths = {".".join(name.split(".")[:end]) for name in names for end in range(1, name.count(".") + 2)}
        return any(self._matches(pattern, path) for path in paths for pattern in self.patterns)

    def _matches(self, pattern: str | type, name: str) -> bool:
        """By name or glob, or by the type of the layer (its class, or the class's name)."""
        module = self.modules.get(name)
        if isinstance(pattern, type):
            return isinstance(module, pattern)
        return fnmatch.fnmatchcase(name, pattern) or (module is not None and type(module).__name__ == pattern)
