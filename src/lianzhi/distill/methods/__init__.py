"""Distillation methods: from a teacher to the step that the training loop runs, one a file."""

from lianzhi.distill.methods import kd
from lianzhi.distill.methods.catalog import registry

__all__ = ["kd", "registry"]
