"""Distillation methods: from a teacher and a student to the stages that the training loop carries out, one a file."""

from lianzhi.distill.methods import (
    attention_transfer,
    bilstm,
    crd,
    dist,
    distilbert,
    dkd,
    fitnet,
    kd,
    layerwise,
    logit_loss,
    minilm,
    mobilebert,
    nst,
    pkd,
    pkt,
    review_kd,
    rkd,
    similarity_preserving,
    theseus,
    theseus_plus,
    tinybert,
)
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.learner import Learner
from lianzhi.distill.methods.lesson import Lessons, Setting, Stage
from lianzhi.distill.methods.teacher import Logits

__all__ = [
    "Learner",
    "Lessons",
    "Logits",
    "Setting",
    "Stage",
    "attention_transfer",
    "bilstm",
    "crd",
    "dist",
    "distilbert",
    "dkd",
    "fitnet",
    "kd",
    "layerwise",
    "logit_loss",
    "minilm",
    "mobilebert",
    "nst",
    "pkd",
    "pkt",
    "registry",
    "review_kd",
    "rkd",
    "similarity_preserving",
    "theseus",
    "theseus_plus",
    "tinybert",
]
