"""The distillation losses by name."""

from lianzhi.registry import Registry

registry = Registry("losses", "loss")
