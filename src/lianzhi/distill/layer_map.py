"""Which layer of the student learns from which layer of the teacher."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lianzhi.errors import RecipeError, did_you_mean

Pair = tuple[int, int]


@dataclass(frozen=True)
class LayerMap:
    """Pairs (student layer, teacher layer); blocks count from 1, and 0 is the embeddings.

    >>> print(LayerMap.uniform(4, 12))
    student 1 2 3  4
    teacher 3 6 9 12
    >>> LayerMap.skip(6, 12).pairs
    ((1, 2), (2, 4), (3, 6), (4, 8), (5, 10))
    >>> LayerMap.last(6, 12).pairs
    ((1, 7), (2, 8), (3, 9), (4, 10), (5, 11))

    Raises:
        RecipeError: there is no pair, a layer does not exist, or a student layer stands in two pairs.
    """

    pairs: tuple[Pair, ...]
    student_layers: int
    teacher_layers: int

    def __post_init__(self) -> None:
        pairs = tuple((int(student), int(teacher)) for student, teacher in self.pairs)
        object.__setattr__(self, "pairs", pairs)
        if not pairs:
            raise RecipeError(
                f"layer map: no pair of layers; a student of {_count(self.student_layers)} has none"
            )
        for who, layers, count in (
            ("student", [pair[0] for pair in pairs], self.student_layers),
            ("teacher", [pair[1] for pair in pairs], self.teacher_layers),
        ):
            wrong = [layer for layer in layers if not 0 <= layer <= count]
            if wrong:
                raise RecipeError(
                    f"layer map: the {who} has no layer {wrong[0]}; it has {_count(count)} "
                    f"(1 to {count}, 0 for the embeddings)"
                )
        students = [student for student, _ in pairs]
        twice = [layer for layer in students if students.count(layer) > 1]
        if twice:
            raise RecipeError(f"layer map: the student's layer {twice[0]} stands in two pairs; leave one out")

    @classmethod
    def uniform(cls, student_layers: int, teacher_layers: int) -> LayerMap:
        """Layer m learns from ⌈m·L/M⌉: the last from the last (TinyBERT, 1909.10351)."""
        _check_depths("uniform", student_layers, teacher_layers)
        return cls(_spread(student_layers, teacher_layers, student_layers), student_layers, teacher_layers)

    @classmethod
    def skip(cls, student_layers: int, teacher_layers: int) -> LayerMap:
        """The uniform map without the last layer, which the logits teach (PKD-Skip, 1908.09355)."""
        _check_depths("skip", student_layers, teacher_layers)
        return cls(
            _spread(student_layers - 1, teacher_layers, student_layers), student_layers, teacher_layers
        )

    @classmethod
    def last(cls, student_layers: int, teacher_layers: int) -> LayerMap:
        """The teacher's last layers but the very last, in order: L−M+j for j = 1…M−1 (PKD-Last, 1908.09355)."""
        _check_depths("last", student_layers, teacher_layers)
        above = teacher_layers - student_layers
        return cls(tuple((j, above + j) for j in range(1, student_layers)), student_layers, teacher_layers)

    @classmethod
    def top(cls, student_layers: int, teacher_layers: int) -> LayerMap:
        """The teacher's last M layers, in order."""
        _check_depths("top", student_layers, teacher_layers)
        above = teacher_layers - student_layers
        return cls(
            tuple((m, above + m) for m in range(1, student_layers + 1)), student_layers, teacher_layers
        )

    @classmethod
    def bottom(cls, student_layers: int, teacher_layers: int) -> LayerMap:
        """The teacher's first M layers, in order."""
        _check_depths("bottom", student_layers, teacher_layers)
        return cls(tuple((m, m) for m in range(1, student_layers + 1)), student_layers, teacher_layers)

    @classmethod
    def explicit(
        cls, layers: Iterable[int] | Iterable[Sequence[int]], student_layers: int, teacher_layers: int
    ) -> LayerMap:
        """Pairs as they are given, or teacher layers for the student's layers 1, 2, … in order.

        >>> LayerMap.explicit([2, 6, 10], 4, 12).pairs
        ((1, 2), (2, 6), (3, 10))
        >>> LayerMap.explicit([(0, 0), (4, 12)], 4, 12).pairs
        ((0, 0), (4, 12))
        """
        given: list[Any] = list(layers)
        if all(type(item) is int for item in given):
            given = list(enumerate(given, start=1))
        for item in given:
            whole = (
                isinstance(item, (tuple, list)) and len(item) == 2 and all(type(one) is int for one in item)
            )
            if not whole:
                raise RecipeError(
                    f"layer map: {item!r} is no pair of layers; "
                    f"give [student, teacher] pairs, or a list of teacher layers"
                )
        return cls(tuple((item[0], item[1]) for item in given), student_layers, teacher_layers)

    @classmethod
    def named(
        cls, name: str | Sequence[int] | Sequence[Sequence[int]], student_layers: int, teacher_layers: int
    ) -> LayerMap:
        """The map that a recipe names (`uniform`, `skip`, `last`, `top`, `bottom`), or lists."""
        if not isinstance(name, str):
            return cls.explicit(name, student_layers, teacher_layers)
        makers = {
            "uniform": cls.uniform,
            "skip": cls.skip,
            "last": cls.last,
            "top": cls.top,
            "bottom": cls.bottom,
        }
        if name not in makers:
            raise RecipeError(f"unknown layer map '{name}'{did_you_mean(name, makers)}, or a list of layers")
        return makers[name](student_layers, teacher_layers)

    def __str__(self) -> str:
        widths = [len(str(max(pair))) for pair in self.pairs]
        rows = (
            " ".join(f"{pair[side]:>{width}}" for pair, width in zip(self.pairs, widths, strict=True))
            for side in (0, 1)
        )
        return "\n".join(f"{who} {row}" for who, row in zip(("student", "teacher"), rows, strict=True))


def _spread(count: int, teacher_layers: int, student_layers: int) -> tuple[Pair, ...]:
    """Student layers 1 to `count` with ⌈m·L/M⌉."""
    return tuple((m, -(-m * teacher_layers // student_layers)) for m in range(1, count + 1))


def _check_depths(name: str, student_layers: int, teacher_layers: int) -> None:
    if not 1 <= student_layers <= teacher_layers:
        raise RecipeError(
            f"layer map '{name}': a student of {_count(student_layers)} and a teacher of {_count(teacher_layers)}; "
            f"the student needs one at least, and no more than the teacher, or give the pairs of layers"
        )
    if name in ("skip", "last") and student_layers == 1:
        raise RecipeError(
            f"layer map '{name}' leaves the last layer out, and the student has but one; "
            f"use 'uniform', or a student of two layers or more; layers that share their weights (ALBERT's do) are one: for "
            f"such a student use the method kd, or an architecture without shared layers"
        )


def _count(layers: int) -> str:
    return f"{layers} layer{'' if layers == 1 else 's'}"
