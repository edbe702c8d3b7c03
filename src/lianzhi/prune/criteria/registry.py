"""The names of all criteria."""

from lianzhi.registry import Registry

registry = Registry("criteria", "criterion")
