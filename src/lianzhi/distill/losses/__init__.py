"""Distillation losses: pure functions of student and teacher tensors, one a file.

A name means the function: ``losses.kd(student_logits, teacher_logits)``. `registry` lists them.
"""

from lianzhi.distill.losses.attention_transfer import attention_transfer
from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.crd import crd
from lianzhi.distill.losses.fitnet import fitnet
from lianzhi.distill.losses.kd import kd
from lianzhi.distill.losses.nst import nst
from lianzhi.distill.losses.pkt import pkt
from lianzhi.distill.losses.review_kd import review_kd
from lianzhi.distill.losses.rkd import rkd
from lianzhi.distill.losses.similarity_preserving import similarity_preserving

__all__ = [
    "attention_transfer",
    "crd",
    "fitnet",
    "kd",
    "nst",
    "pkt",
    "registry",
    "review_kd",
    "rkd",
    "similarity_preserving",
]
