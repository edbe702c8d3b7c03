"""Tasks: data in strict splits, a loss, metrics, and how an input is made.

`task` makes one by name, `Task` wraps DataLoaders of one's own, `registry` knows the names.
"""

from lianzhi.tasks import builtin as _builtin
from lianzhi.tasks._task import Task
from lianzhi.tasks.batch import Batch
from lianzhi.tasks.catalog import registry, task
from lianzhi.tasks.preprocess import Preprocess
from lianzhi.tasks.text_preprocess import TextPreprocess

__all__ = ["Batch", "Preprocess", "Task", "TextPreprocess", "registry", "task"]

_builtin.load()
