"""Quantization-aware training: PTQ's module with what it takes to train it, and the way back."""

from lianzhi.quantize.qat.lsq import lsq
from lianzhi.quantize.qat.norms import freeze_norms_, unfolded_norms
from lianzhi.quantize.qat.trainable import make_trainable, same_grid, trained

__all__ = ["freeze_norms_", "lsq", "make_trainable", "same_grid", "trained", "unfolded_norms"]
