"""What is not known yet: asked where somebody can answer, and otherwise an error that names the flag to give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lianzhi.errors import RecipeError, listed


@dataclass(frozen=True)
class Missing:
    """A question on it, the flag that answers it in a command, and the answers to choose from: value and meaning.

    Without choices any text is an answer. `hint` says more, beside what was found.
    """

    flag: str
    text: str
    choices: tuple[tuple[str, str], ...] = ()
    hint: str = ""


Ask = Callable[[Missing], str]


def answer(question: Missing, ask: Ask | None) -> str:
    """Ask, or raise `RecipeError` that names the flag."""
    if ask is not None:
        return ask(question)
    found = listed(value for value, _ in question.choices)
    among = f"There are {found}; give" if found else "Give"
    hint = f" ({question.hint})" if question.hint else ""
    raise RecipeError(f"{question.text} {among} {question.flag}{hint}")
