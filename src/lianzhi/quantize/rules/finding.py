"""What a rule finds, and the registry of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from lianzhi.quantize.rules.qdq import QdqGraph


@dataclass(frozen=True)
class Finding:
    """A defect of a Q/DQ file: the rule's id, the node, what is wrong, and what to do."""

    rule: str
    node: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.node}: {self.message}; {self.fix}"


Check: TypeAlias = Callable[[QdqGraph], Iterator[Finding]]


@dataclass(frozen=True)
class Rule:
    """A check and the targets that it is for."""

    name: str
    targets: tuple[str, ...]
    check: Check


RULES: list[Rule] = []


def rule(name: str, *targets: str) -> Callable[[Callable[[QdqGraph], Iterator[tuple[str, str, str]]]], Check]:
    """Register a check that yields (node, message, fix)."""

    def add(find: Callable[[QdqGraph], Iterator[tuple[str, str, str]]]) -> Check:
        def check(graph: QdqGraph) -> Iterator[Finding]:
            for node, message, fix in find(graph):
                yield Finding(name, node, message, fix)

        RULES.append(Rule(name, targets, check))
        return check

    return add
