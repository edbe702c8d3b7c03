"""Distillation losses: pure functions of student and teacher tensors, one a file.

A name means the function: ``losses.kd(student_logits, teacher_logits)``. `registry` lists them.
"""

from lianzhi.distill.losses.attention_kl import attention_kl
from lianzhi.distill.losses.attention_mse import attention_mse
from lianzhi.distill.losses.attention_transfer import attention_transfer
from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.cosine import cosine
from lianzhi.distill.losses.crd import crd
from lianzhi.distill.losses.dist import dist
from lianzhi.distill.losses.dkd import dkd
from lianzhi.distill.losses.embedding_mse import embedding_mse
from lianzhi.distill.losses.fitnet import fitnet
from lianzhi.distill.losses.forward_kl import forward_kl
from lianzhi.distill.losses.hidden_mse import hidden_mse
from lianzhi.distill.losses.jsd import jsd
from lianzhi.distill.losses.kd import kd
from lianzhi.distill.losses.logit_mse import logit_mse
from lianzhi.distill.losses.minilm import minilm
from lianzhi.distill.losses.minilm_v2 import minilm_v2
from lianzhi.distill.losses.nst import nst
from lianzhi.distill.losses.patience import patience
from lianzhi.distill.losses.pkt import pkt
from lianzhi.distill.losses.reverse_kl import reverse_kl
from lianzhi.distill.losses.review_kd import review_kd
from lianzhi.distill.losses.rkd import rkd
from lianzhi.distill.losses.similarity_preserving import similarity_preserving
from lianzhi.distill.losses.skew_kl import skew_kl
from lianzhi.distill.losses.soft_cross_entropy import soft_cross_entropy
from lianzhi.distill.losses.standardized import standardized
from lianzhi.distill.losses.tokens import count_tokens

__all__ = [
    "attention_kl",
    "attention_mse",
    "attention_transfer",
    "cosine",
    "count_tokens",
    "crd",
    "dist",
    "dkd",
    "embedding_mse",
    "fitnet",
    "forward_kl",
    "hidden_mse",
    "jsd",
    "kd",
    "logit_mse",
    "minilm",
    "minilm_v2",
    "nst",
    "patience",
    "pkt",
    "registry",
    "reverse_kl",
    "review_kd",
    "rkd",
    "similarity_preserving",
    "skew_kl",
    "soft_cross_entropy",
    "standardized",
]
