"""Distillation losses: pure functions of student and teacher tensors, one a file.

A name means the function: ``losses.kd(student_logits, teacher_logits)``. `registry` lists them.
"""

from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.kd import kd

__all__ = ["kd", "registry"]
