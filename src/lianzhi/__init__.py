"""Lianzhi (炼知): make a trained model small and fast, and prove it.

```python
import lianzhi as lz

task = lz.task("cifar10", data="data/cifar10")
model = lz.model("resnet20", weights="resnet20.safetensors")
result = lz.compress(model, task, steps=[
    lz.Sparsify(coefficient=1e-4, epochs=5),
    lz.Prune(criterion="bn_scale", ratio=0.5),
    lz.Distill(method="kd", temperature=4, epochs=10),
    lz.Quantize(method="ptq"),
], target="auto", output="out/")
print(result.table())
```
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from lianzhi._version import __version__

if TYPE_CHECKING:
    from lianzhi import codebook, deploy, distill, graph, measure, prune, quantize
    from lianzhi.artifact import save
    from lianzhi.codebook import load
    from lianzhi.errors import (
        ArtifactError,
        DataError,
        GraphError,
        LianzhiError,
        RecipeError,
        TargetError,
        TrainingError,
    )
    from lianzhi.models import model
    from lianzhi.pipeline import Result, compress
    from lianzhi.recipe import (
        Distill,
        Measure,
        Pack,
        Prune,
        Quantize,
        Recipe,
        ReduceVocabulary,
        ShareWeights,
        Sparsify,
        Train,
    )
    from lianzhi.tasks import Task, task

# Names and the modules that they are of; all is imported when it is first asked for, so that a command starts at once.
_HOMES = {
    "artifact": ("save",),
    "codebook": ("load",),
    "errors": (
        "ArtifactError",
        "DataError",
        "GraphError",
        "LianzhiError",
        "RecipeError",
        "TargetError",
        "TrainingError",
    ),
    "models": ("model",),
    "pipeline": ("Result", "compress"),
    "recipe": (
        "Distill",
        "Measure",
        "Pack",
        "Prune",
        "Quantize",
        "Recipe",
        "ReduceVocabulary",
        "ShareWeights",
        "Sparsify",
        "Train",
    ),
    "tasks": ("Task", "task"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ArtifactError",
    "DataError",
    "Distill",
    "GraphError",
    "LianzhiError",
    "Measure",
    "Pack",
    "Prune",
    "Quantize",
    "Recipe",
    "RecipeError",
    "ReduceVocabulary",
    "Result",
    "ShareWeights",
    "Sparsify",
    "TargetError",
    "Task",
    "Train",
    "TrainingError",
    "__version__",
    "codebook",
    "compress",
    "deploy",
    "distill",
    "graph",
    "load",
    "measure",
    "model",
    "prune",
    "quantize",
    "save",
    "task",
]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """A public name, or a module of the package, imported when it is first asked for."""
        if name in _HOME_OF:
            value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        else:
            value = _module(name)
        globals()[name] = value
        return value


def _module(name: str) -> Any:
    whole = f"{__name__}.{name}"
    missing = AttributeError(
        f"module '{__name__}' has no attribute '{name}'", name=name, obj=sys.modules[__name__]
    )
    if name.startswith("_") or not name.isidentifier():
        raise missing
    try:
        return importlib.import_module(whole)
    except ModuleNotFoundError as error:
        if error.name != whole:
            raise
        raise missing from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
