"""Recipes: a compression run as data. The YAML file, the Python call and the saved JSON are one thing.

A recipe names a model, a task, a target, a seed and a list of steps. It is validated as a whole before
anything runs; a key that nobody reads is an error with a suggestion.
"""

from lianzhi.recipe.codebook import Pack, ShareWeights
from lianzhi.recipe.raw import expand, override
from lianzhi.recipe.reading import load, parse
from lianzhi.recipe.specs import ModelSpec, StudentSpec, TaskSpec
from lianzhi.recipe.steps import (
    BUDGETS,
    STEPS,
    Distill,
    Prune,
    Quantize,
    Sparsify,
    Train,
    kind_of,
    parse_step,
)
from lianzhi.recipe.vocabulary import ReduceVocabulary
from lianzhi.recipe.whole import Measure, Recipe

__all__ = [
    "BUDGETS",
    "STEPS",
    "Distill",
    "Measure",
    "ModelSpec",
    "Pack",
    "Prune",
    "Quantize",
    "Recipe",
    "ReduceVocabulary",
    "ShareWeights",
    "Sparsify",
    "StudentSpec",
    "TaskSpec",
    "Train",
    "expand",
    "kind_of",
    "load",
    "override",
    "parse",
    "parse_step",
]
