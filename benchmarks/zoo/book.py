"""All files of the zoo, by their path below the folder of documentation."""

from __future__ import annotations

from zoo.page import page
from zoo.results import Results
from zoo.text import LANGUAGES

PAGES = {"en": "model_zoo.md", "zh": "zh/model_zoo.md"}


def book(results: Results) -> dict[str, str]:
    """The pages and charts that the results give."""
    return {PAGES[language]: page(results, language, lambda name, language: []) for language in LANGUAGES}
