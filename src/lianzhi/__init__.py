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

from lianzhi import codebook, deploy, distill, graph, measure, prune, quantize
from lianzhi._version import __version__
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
