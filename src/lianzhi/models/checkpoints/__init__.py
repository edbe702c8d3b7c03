"""Checkpoints of other frameworks as tensors by name: without the framework, and with nothing unpickled that could run code."""

from lianzhi.models.checkpoints.oneflow import is_oneflow, read_oneflow
from lianzhi.models.checkpoints.tensorflow import read_tensorflow

__all__ = ["is_oneflow", "read_oneflow", "read_tensorflow"]
