"""Knowledge distillation: losses are functions of tensors, methods make the step that the training loop runs.

`capture` notes what a model computes inside while it runs, and a `LayerMap` says which layer learns from which.
"""

from lianzhi.distill import losses, methods
from lianzhi.distill.capture import capture
from lianzhi.distill.layer_map import LayerMap
from lianzhi.distill.plain_scores import require_plain_scores

__all__ = ["LayerMap", "capture", "losses", "methods", "require_plain_scores"]
