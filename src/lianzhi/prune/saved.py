"""Plans from JSON, whatever they remove."""

from __future__ import annotations

from typing import Any

from torch import nn

from lianzhi.prune.depth import DepthPlan
from lianzhi.prune.granularity import LAYERS
from lianzhi.prune.plan_text import parse
from lianzhi.prune.planned import Plan


def plan_from_json(text: str, model: nn.Module, example_inputs: Any) -> Plan | DepthPlan:
    """Read a plan of channels or of whole layers, for a model of the structure that it was made for.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    >>> text = '{"format": 1, "groups": {"0": {"channels": 6, "keep": [0, 5]}}}'
    >>> plan_from_json(text, net, torch.zeros(1, 4)).apply()[0].out_features
    2

    Raises `ArtifactError` for a plan that is damaged or of another model.
    """
    kind = DepthPlan if parse(text).get("granularity") == LAYERS else Plan
    return kind.from_json(text, model, example_inputs)
