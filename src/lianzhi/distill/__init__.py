"""Knowledge distillation: losses are functions of tensors, methods make the step that the training loop runs."""

from lianzhi.distill import losses, methods

__all__ = ["losses", "methods"]
