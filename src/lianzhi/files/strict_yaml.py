"""YAML of people's own: safe types only, no key twice, and nothing that grows without end.

A few lines of aliases of aliases stand for billions of values, and a line of brackets for any depth: both are
counted in the parsed nodes, before a value is made.
"""

from __future__ import annotations

from typing import Any

import yaml

from lianzhi.errors import RecipeError

MOST_VALUES = 100_000
DEEPEST = 50


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice is an error."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
        if isinstance(key, (dict, list)):
            raise RecipeError(f"line {key_node.start_mark.line + 1}: a key must be a word, not {key!r}")
        if key in seen:
            raise RecipeError(f"line {key_node.start_mark.line + 1}: the key '{key}' stands twice; keep one")
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML; `where` names it in errors.

    >>> parse_yaml("steps.1: [0.5, 1.0e-4]", "recipe")
    {'steps.1': [0.5, 0.0001]}
    >>> parse_yaml("[", "--set ratio")
    Traceback (most recent call last):
        ...
    lianzhi.errors.RecipeError: --set ratio: line 1 is not valid YAML (expected the node content, ...)
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _count(node, {}, 0)
            return loader.construct_document(node)  # type: ignore[no-untyped-call]
        finally:
            loader.dispose()  # type: ignore[no-untyped-call]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise RecipeError(f"{where}:{line} is not valid YAML ({getattr(error, 'problem', error)})") from None
    except (RecursionError, _TooMuchError):
        raise RecipeError(
            f"{where}: nested more than {DEEPEST} deep, or more than {MOST_VALUES:,} values once its "
            f"aliases (*name) are filled in; write it flat"
        ) from None
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from None
    except ValueError as error:  # an impossible date, say
        raise RecipeError(f"{where}: is not valid YAML ({error})") from None


class _TooMuchError(Exception):
    """Too deep, or too many values."""


def _count(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """The number of values that a node stands for, aliases filled in."""
    if depth > DEEPEST:
        raise _TooMuchError
    if id(node) in known:
        return known[id(node)]
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    total = 1
    for child in children:
        total += _count(child, known, depth + 1)
        if total > MOST_VALUES:
            raise _TooMuchError
    known[id(node)] = total
    return total
