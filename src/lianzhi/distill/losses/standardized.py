"""Logit standardisation: Sun et al. 2024, "Logit Standardization in Knowledge Distillation" (2403.01427), algorithm 1.

    z = (x - mean(x)) / sqrt(mean((x - mean(x))²)), over the classes of one sample

A softmax with a temperature of T sees z / T: the temperature of a sample is T times the standard deviation of its
logits, of its own for student and teacher. A student then need not reach the range of the teacher's logits.

The paper divides by K under the root, as here; its authors' code by K - 1 (a temperature that is larger by
sqrt(K / (K - 1))), and adds 1e-7 to the deviation. Here logits that are all the same become zeros, without a gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lianzhi.distill.losses.parts import wide


def standardized(logits: Tensor) -> Tensor:
    """The z-scores of logits (…, classes), over the classes: mean 0, standard deviation 1; float32 or wider.

    >>> standardized(torch.tensor([[1.0, 3.0], [5.0, 5.0]])).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]

    Classes that a model rules out, -inf, stay so, and have no part in the mean and the deviation.
    """
    logits = wide(logits)
    ruled_out = logits.detach() == float("-inf")
    logits = logits.masked_fill(ruled_out, 0)
    count = (~ruled_out).sum(-1, keepdim=True).clamp(min=1)
    centred = (logits - logits.sum(-1, keepdim=True) / count).masked_fill(ruled_out, 0)
    smallest = 8 * torch.finfo(logits.dtype).eps * logits.detach().abs().amax(-1, keepdim=True)
    variance = centred.square().sum(-1, keepdim=True) / count
    flat = variance.detach() <= smallest.square()
    scaled = torch.where(flat, 0.0, centred) * variance.masked_fill(flat, 1.0).rsqrt()
    return scaled.masked_fill(ruled_out, float("-inf"))
