"""The distillation methods by name. An entry builds, from a `Setting` and its options, the `Lessons` that are trained."""

from lianzhi.registry import Registry

registry = Registry("methods", "method")
