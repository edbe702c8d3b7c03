"""The distillation methods by name. An entry builds ``step(model, batch) -> {"loss", "terms"}`` from a teacher."""

from lianzhi.registry import Registry

registry = Registry("methods", "method")
