"""The registry: everything that has a name (criteria, losses, methods, models, observers,
tasks, targets, techniques).

An entry has a name, a summary, a paper, its config class and the function or class itself. `lianzhi list`
prints it, the docs' tables are made from it, and one test walks it. A package of someone else's adds
entries through an entry point of the group ``lianzhi.<kind>``, read when a name is not Lianzhi's own. One that
cannot be loaded is named in a `PluginWarning` and left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any, TypeVar

from lianzhi.config import Config
from lianzhi.errors import RecipeError, did_you_mean

T = TypeVar("T")


class PluginWarning(UserWarning):
    """A package's entry point could not be loaded; its names are missing, all others are there."""


@dataclass(frozen=True)
class Entry:
    """One named thing: what it is, where it comes from, how it is made."""

    kind: str
    name: str
    summary: str
    paper: str
    config: type[Config] | None
    build: Any

    @property
    def package(self) -> str:
        """The package that it is from; "" for Lianzhi's own."""
        build = self.build.func if isinstance(self.build, partial) else self.build
        name = str(build.__module__).partition(".")[0]
        return "" if name == "lianzhi" else name

    def options(self, **given: Any) -> Config:
        """Its options as it takes them, checked; of one without a config class there are none."""
        return (self.config or Config)(**given)


class Registry:
    """Entries of one kind, by name.

    >>> shapes = Registry("shapes", "shape")
    >>> @shapes.register("square", "four equal sides")
    ... def square(side=1): return side * side
    >>> shapes.get("square").build(3)
    9
    >>> shapes.get("sqare")
    Traceback (most recent call last):
        ...
    lianzhi.errors.RecipeError: unknown shape 'sqare'; did you mean 'square'?
    """

    def __init__(self, kind: str, noun: str) -> None:
        self.kind = kind
        self.noun = noun
        self._entries: dict[str, Entry] = {}
        self._plugins_read = False

    def register(
        self, name: str, summary: str, *, paper: str = "", config: type[Config] | None = None
    ) -> Callable[[T], T]:
        """Decorate a function or class to give it a name."""

        def add(build: T) -> T:
            if name in self._entries:
                raise RecipeError(f"{self.noun} '{name}' is registered twice")
            self._entries[name] = Entry(self.kind, name, summary, paper, config, build)
            return build

        return add

    def get(self, name: str) -> Entry:
        """Return the entry, or raise `RecipeError` with a suggestion."""
        if name not in self._entries:
            self._read_plugins()
        if name not in self._entries:
            raise RecipeError(f"unknown {self.noun} '{name}'{did_you_mean(name, self._entries)}")
        return self._entries[name]

    def names(self) -> list[str]:
        """All names, sorted, those of installed plug-ins included."""
        self._read_plugins()
        return sorted(self._entries)

    def _read_plugins(self) -> None:
        if self._plugins_read:
            return
        self._plugins_read = True
        for point in sorted(metadata.entry_points(group=f"lianzhi.{self.kind}"), key=str):
            before = dict(self._entries)
            try:
                point.load()
            except (Exception, SystemExit) as error:
                self._entries = before
                warnings.warn(_complaint(point, error), PluginWarning, stacklevel=3)


def _complaint(point: metadata.EntryPoint, error: BaseException) -> str:
    """Which package is broken, how, and what to do."""
    name = point.dist.name if point.dist is not None else point.value.partition(".")[0]
    version = f" {point.dist.version}" if point.dist is not None else ""
    return (
        f"package '{name}'{version} is left out: its entry point '{point.name}' of {point.group} ({point.value}) "
        f"failed with {type(error).__name__}: {error}; correct the package, or: pip uninstall {name}"
    )
