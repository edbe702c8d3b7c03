"""A student made for module replacement: how many blocks replace how many, and where they begin."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import nn

from lianzhi.config import Config
from lianzhi.distill.layer_map import LayerMap
from lianzhi.distill.methods.lesson import Setting
from lianzhi.distill.methods.replacing import Stack
from lianzhi.distill.methods.teacher import logits_of
from lianzhi.distill.transformer import layers_of
from lianzhi.errors import DataError, GraphError, RecipeError
from lianzhi.graph import device_of, in_eval, moved
from lianzhi.graph.shorten import shortened
from lianzhi.train.default_step import call


class GroupOptions(Config):
    """Which blocks replace which. A student of fewer blocks than the teacher brings its own."""

    compress_ratio: float | None = Field(
        default=None, ge=1, description="layers of the predecessor a successor; default 2"
    )
    groups: int | tuple[int, ...] | None = Field(
        default=None, description="so many successors; or how many layers each of them replaces"
    )
    init: str | tuple[int, ...] | None = Field(
        default=None,
        description="the layers that successors begin as: bottom (default), uniform, top, a list",
    )
    predecessor_dropout: bool = Field(default=True, description="dropout in the predecessor's layers too")


def even(depth: int, successors: int) -> list[int]:
    """How many layers each successor replaces: successor m ends with layer ⌈m · depth / successors⌉.

    >>> even(6, 3), even(6, 4)
    ([2, 2, 2], [2, 1, 2, 1])
    """
    ends = [-(-number * depth // successors) for number in range(successors + 1)]
    return [after - before for before, after in itertools.pairwise(ends)]


def sizes_of(options: GroupOptions, depth: int, successors: int | None = None) -> list[int]:
    """The groups that the options ask for, of `depth` layers; `successors` is how many there are already, if any.

    >>> sizes_of(GroupOptions(), 5), sizes_of(GroupOptions(groups=(1, 4)), 5)
    ([2, 2, 1], [1, 4])

    Raises:
        RecipeError: they do not fit the layers, or one another.
    """
    groups = options.groups
    if groups is not None and options.compress_ratio is not None:
        raise RecipeError("'groups' and 'compress_ratio' both say how many successors there are; give one")
    if isinstance(groups, tuple):
        if not groups or min(groups) < 1 or sum(groups) != depth:
            raise RecipeError(
                f"groups: {list(groups)} must be numbers from 1 whose sum is {depth}, the predecessor's layers"
            )
        sizes = list(groups)
    else:
        if options.compress_ratio is not None or (groups is None and successors is None):
            groups = -int(-depth // (options.compress_ratio or 2))
        count = successors if groups is None else groups
        assert count is not None
        if not 1 <= count <= depth:
            raise RecipeError(
                f"groups: {count} successors for {depth} layers; give a number from 1 to {depth}"
            )
        sizes = even(depth, count)
    if successors is not None and len(sizes) != successors:
        raise RecipeError(
            f"the student has {successors} layers, and {len(sizes)} successors are asked for; leave "
            f"'groups' and 'compress_ratio' out, or give another student"
        )
    return sizes


def make_stack(setting: Setting, options: GroupOptions) -> Stack:
    """A new student whose blocks are successors of the teacher's, and which is the teacher outside of them.

    Setting and models are left as they are. A student as deep as the teacher gives those of its blocks that `init`
    names; one of fewer blocks gives all.

    Raises:
        RecipeError: the groups do not fit, or the teacher's logits are kept, so that it is not run.
        DataError: outside of the blocks student and teacher have other weights, by name or shape.
        GraphError: a model has no list of like blocks, or its blocks cannot be run in one another's place.
    """
    if setting.source is not None and setting.source.keep is not None:
        raise RecipeError(
            "module replacement runs the teacher's layers on every batch, with the student's tokens: give a teacher "
            "of the same tokenizer, and cache: false"
        )
    _require_same_type(setting.student, setting.teacher)
    student, sizes = _shortened(setting, options)
    names, old = layers_of(student), layers_of(setting.teacher)
    _take_over(student, names, setting.teacher, old)
    blocks = copy.deepcopy([setting.teacher.get_submodule(name) for name in old])
    ends = list(itertools.accumulate(sizes))
    parts = [blocks[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    stack = Stack(
        student, names, parts, ends=[old[end - 1] for end in ends], dropout=options.predecessor_dropout
    )
    _check(stack, setting)
    return stack


def _require_same_type(student: nn.Module, teacher: nn.Module) -> None:
    """Layers of both run one after another."""
    types = [next((p.dtype for p in model.parameters()), None) for model in (student, teacher)]
    if types[0] != types[1]:
        raise DataError(
            f"the teacher's layers run among the student's, and the student is {types[0]}, the teacher {types[1]}; call "
            f".float() on the one that is not torch.float32"
        )


def _shortened(setting: Setting, options: GroupOptions) -> tuple[nn.Module, list[int]]:
    """A copy of the student with as many blocks as there are groups, and the sizes of these."""
    student = copy.deepcopy(setting.student)
    names, depth = layers_of(student), len(layers_of(setting.teacher))
    if len(names) > depth:
        raise RecipeError(
            f"the student has {len(names)} layers and the predecessor {depth}; it must not have more"
        )
    if len(names) < depth:
        if options.init is not None:
            raise RecipeError(
                f"the student has {len(names)} layers, which are the successors; leave 'init' out"
            )
        return student, sizes_of(options, depth, len(names))
    sizes = sizes_of(options, depth)
    kept = _first_weights("bottom" if options.init is None else options.init, len(sizes), depth)
    gone = [name for number, name in enumerate(names, 1) if number not in kept]
    return (shortened(student, gone) if gone else student), sizes


def _first_weights(init: str | tuple[int, ...], successors: int, depth: int) -> list[int]:
    """Which layers the successors begin as, from 1."""
    found = [layer for _, layer in LayerMap.named(init, successors, depth).pairs]
    rises = all(after > before for before, after in itertools.pairwise([0, *found]))
    if len(found) != successors or not rises:
        raise RecipeError(
            f"init: {init if isinstance(init, str) else list(init)} names layers {found} for {successors} successors; "
            f"it must name one for each, in rising order from 1"
        )
    return found


def _take_over(student: nn.Module, names: Sequence[str], teacher: nn.Module, old: Sequence[str]) -> None:
    """Copy what lies outside of the blocks from the teacher: embeddings, pooler, classifier."""
    own, theirs = (
        {
            name: tensor
            for name, tensor in model.state_dict().items()
            if not name.startswith(tuple(f"{block}." for block in blocks))
        }
        for model, blocks in ((student, names), (teacher, old))
    )
    for name in {**own, **theirs}:
        shapes = [list(side[name].shape) if name in side else None for side in (own, theirs)]
        if shapes[0] != shapes[1]:
            raise DataError(
                f"module replacement keeps all but the layers, and '{name}' is {shapes[0] or 'missing'} in the "
                f"student and {shapes[1] or 'missing'} in the teacher; give a student of the teacher's class and width"
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(theirs[name])


def _check(stack: Stack, setting: Setting) -> None:
    """The predecessor in the student computes what the teacher does, and successors fit in its place."""
    student, count = stack.student, len(stack.places)
    inputs = moved(setting.task.example_inputs, device_of(student))
    with in_eval(student), torch.no_grad():
        with setting.running(device_of(student)) as teacher:
            wanted = logits_of(call(teacher, inputs), "teacher")
        try:
            with stack.replaced([False] * count):
                found = logits_of(call(student, inputs), "student")
            for successor in range(count):
                with stack.replaced([place == successor for place in range(count)]):
                    call(student, inputs)
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise GraphError(
                f"the layers of {type(student).__name__} cannot be run in one another's place ({reason}); "
                f"use kd or pkd"
            ) from None
    scale = wanted.abs().max().clamp(min=1)
    if found.shape != wanted.shape or not bool(((found - wanted).abs() <= 1e-3 * scale).all()):
        raise GraphError(
            f"the layers of {type(student).__name__} give other outputs in a stack of {count}: they depend on "
            f"their place; use kd or pkd"
        )
