"""Accuracy, latency, size, MACs, memory, and the machine they were measured on."""

from lianzhi.measure.accuracy import Evaluation, evaluate
from lianzhi.measure.counts import macs, parameters, size
from lianzhi.measure.machine import Cpu, cpu, environment
from lianzhi.measure.memory import memory
from lianzhi.measure.timing import Latency, latency

__all__ = [
    "Cpu",
    "Evaluation",
    "Latency",
    "cpu",
    "environment",
    "evaluate",
    "latency",
    "macs",
    "memory",
    "parameters",
    "size",
]
