"""The lint: rules that check a Q/DQ file against its target."""

from __future__ import annotations

import os

from lianzhi.errors import RecipeError, did_you_mean
from lianzhi.quantize.rules import numbers, structure, tensorrt
from lianzhi.quantize.rules.finding import RULES, Finding, Rule
from lianzhi.quantize.rules.qdq import QdqGraph

__all__ = ["RULES", "Finding", "QdqGraph", "Rule", "lint", "numbers", "structure", "tensorrt"]


def lint(path: str | os.PathLike[str], target: str) -> list[Finding]:
    """Check a quantized ONNX file against its target.

    ```python
    for finding in quantize.lint("model-int8.onnx", "onnxruntime"):
        print(finding)          # symmetric-activations: relu_3_Quantize: the activation is int8; …
    ```

    An empty list means that no rule found anything. Raises `RecipeError` for a target without rules, and
    `TargetError` for a file that is not ONNX.
    """
    known = {name for rule in RULES for name in rule.targets}
    if target not in known:
        raise RecipeError(f"there are no rules for target '{target}'{did_you_mean(target, known)}")
    graph = QdqGraph(path)
    return [finding for rule in RULES if target in rule.targets for finding in rule.check(graph)]
