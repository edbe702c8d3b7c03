"""The shape of a model's inputs and outputs: tensors in tuples, lists and dicts, as JSON and as pytree specs.

A leaf is an object without ``tuple``, ``list`` or ``dict``; what it holds is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils import _pytree as pytree

from lianzhi.errors import ArtifactError

MAX_DEPTH = 16


def tree_of(spec: Any, leaves: Iterator[Any]) -> Any:
    """A pytree spec as JSON; `leaves` gives the content of each leaf.

    A dict-like class (the outputs of Hugging Face models) becomes a dict, a named tuple a tuple.
    """
    if spec.is_leaf():
        return next(leaves)
    children = [spec.child(index) for index in range(spec.num_children)]
    if spec.type is tuple or (isinstance(spec.type, type) and issubclass(spec.type, tuple)):
        return {"tuple": [tree_of(child, leaves) for child in children]}
    if spec.type is list:
        return {"list": [tree_of(child, leaves) for child in children]}
    keys = _keys(spec)
    if keys is None or len(keys) != len(children):
        raise ArtifactError(
            f"inputs or outputs of type {getattr(spec.type, '__name__', spec.type)} cannot be saved; "
            f"use tensors in tuples, lists and dicts with string keys"
        )
    return {"dict": [[key, tree_of(child, leaves)] for key, child in zip(keys, children, strict=True)]}


def _keys(spec: Any) -> list[str] | None:
    """The keys of a dict or of a dict-like class, from what its pytree registration kept."""
    context = spec.context
    if isinstance(context, (list, tuple)) and len(context) == 2 and isinstance(context[0], (list, tuple)):
        context = context[0]
    if isinstance(context, (list, tuple)) and all(isinstance(key, str) for key in context):
        return list(context)
    return None


def walk(tree: Any, leaf: Callable[[Any], Any], depth: int = 0) -> Any:
    """Build the tuples, lists and dicts that a tree describes, with `leaf` of each leaf in its place.

    >>> walk({"tuple": [{"a": 1}, {"dict": [["x", {"a": 2}]]}]}, lambda content: content["a"])
    (1, {'x': 2})
    """
    if not isinstance(tree, dict) or depth > MAX_DEPTH:
        raise ArtifactError(f"{str(tree)[:80]} does not describe inputs or outputs")
    found = tree.keys() & {"tuple", "list", "dict"}
    if not found:
        return leaf(tree)
    kind = found.pop()
    items = tree[kind]
    if len(tree) != 1 or not isinstance(items, list):
        raise ArtifactError(f"{str(tree)[:80]} does not describe inputs or outputs")
    if kind != "dict":
        values = [walk(item, leaf, depth + 1) for item in items]
        return tuple(values) if kind == "tuple" else values
    result: dict[str, Any] = {}
    for item in items:
        if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str) or item[0] in result:
            raise ArtifactError(f"{str(item)[:80]} is not a named input or output")
        result[item[0]] = walk(item[1], leaf, depth + 1)
    return result


def describe(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """The tree of a value made of tuples, lists and dicts; the inverse of `walk`."""
    if isinstance(value, dict):
        return {"dict": [[str(key), describe(item, leaf)] for key, item in value.items()]}
    if isinstance(value, list):
        return {"list": [describe(item, leaf) for item in value]}
    if isinstance(value, tuple):
        return {"tuple": [describe(item, leaf) for item in value]}
    return leaf(value)


def spec_of(tree: Any) -> tuple[Any, list[Any]]:
    """A tree as a pytree spec, with its leaves in order."""
    leaves, spec = pytree.tree_flatten(walk(tree, _Leaf))
    return spec, [leaf.content for leaf in leaves]


class _Leaf:
    """Keeps a leaf's content from being taken for a part of the tree."""

    def __init__(self, content: Any) -> None:
        self.content = content
