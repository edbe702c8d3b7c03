"""Which kinds of groups a plan may touch: all of them, heads, feed-forward width, hidden width."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from lianzhi.errors import GraphError, RecipeError, did_you_mean
from lianzhi.graph import Graph, Groups, channel_groups
from lianzhi.graph.kinds import FFN, HIDDEN
from lianzhi.graph.rules import HEADS, INSIDE

CHANNELS, LAYERS = "channel", "layers"
GRANULARITIES = (CHANNELS, HEADS, INSIDE, FFN, HIDDEN, LAYERS)


def names_of(granularity: str | Sequence[str]) -> list[str]:
    """One name or several, checked.

    >>> names_of("heads"), names_of(["heads", "ffn"])
    (['heads'], ['heads', 'ffn'])
    """
    if not isinstance(granularity, Iterable):
        raise RecipeError(f"granularity={granularity!r}: one or several of {', '.join(GRANULARITIES)}")
    names = [granularity] if isinstance(granularity, str) else list(granularity)
    for name in names:
        if name not in GRANULARITIES:
            raise RecipeError(f"unknown granularity '{name}'{did_you_mean(str(name), GRANULARITIES)}")
    if not names or (LAYERS in names and len(names) > 1):
        raise RecipeError("granularity: 'layers' stands alone; give at least one name")
    if INSIDE in names and HEADS in names:
        raise RecipeError(
            "granularity: attention loses whole 'heads' or a 'head_dim' of each, not both in one plan"
        )
    return names


def groups_of(graph: Graph, granularity: str | Sequence[str]) -> Groups:
    """The groups of these kinds; ``channel`` means all that can go one by one."""
    names = names_of(granularity)
    groups = channel_groups(graph, inner=INSIDE in names)
    if CHANNELS in names:
        return groups
    found = [group for group in groups.groups if group.kind in names]
    if not found:
        there = ", ".join(sorted({group.kind for group in groups.groups})) or "none"
        raise GraphError(
            f"{type(graph.source).__name__} has no groups of granularity {', '.join(names)} (it has: {there})"
        )
    return dataclasses.replace(groups, groups=found)
