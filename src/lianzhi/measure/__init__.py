"""Accuracy, latency, size, MACs, memory, and the machine they were measured on."""

from lianzhi.measure.accuracy import Evaluation, evaluate
from lianzhi.measure.counts import macs, nonzero, parameters, size
from lianzhi.measure.machine import Cpu, cpu, environment
from lianzhi.measure.memory import memory
from lianzhi.measure.timing import Latency, latency
from lianzhi.measure.turns import Turns, both_in_turns, in_turns, settle

__all__ = [
    "Cpu",
    "Evaluation",
    "Latency",
    "Turns",
    "both_in_turns",
    "cpu",
    "environment",
    "evaluate",
    "in_turns",
    "latency",
    "macs",
    "memory",
    "nonzero",
    "parameters",
    "settle",
    "size",
]
