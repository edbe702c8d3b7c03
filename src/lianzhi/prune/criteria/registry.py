"""The names of all criteria, and what each of them has to know beside the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from lianzhi.errors import RecipeError, did_you_mean
from lianzhi.registry import Registry

T = TypeVar("T", bound=Callable[..., Any])

registry = Registry("criteria", "criterion")

ACTIVATIONS, GRADIENTS, FISHER = "activations", "gradients", "fisher"
KNOWN = (ACTIVATIONS, GRADIENTS, FISHER)
_NEEDS: dict[Any, str] = {}


def needs(what: str) -> Callable[[T], T]:
    """Declare what a criterion reads of a `GroupView`: its ``activations``, ``gradients`` or ``fisher``.

    >>> @needs("activations")
    ... def liveliest(view): return [activity.magnitude for activity in view.activations]
    >>> needed_by(liveliest)
    'activations'

    It is computed from `calibration` once, for the whole graph, before the criterion is called.
    """
    if what not in KNOWN:
        raise RecipeError(f"needs: unknown '{what}'{did_you_mean(what, KNOWN)}")

    def add(function: T) -> T:
        _NEEDS[function] = what
        return function

    return add


def needed_by(function: Any) -> str | None:
    """What a criterion declared with `needs`; None for one that reads weights only."""
    return _NEEDS.get(function)
