"""Checkpoints of other frameworks as tensors by name: without the framework, and with nothing unpickled that could run code."""
