"""From what was seen of a tensor to its range. One observer a file, each a function of statistics."""

from lianzhi.quantize.observers import entropy, minmax, moving_average, mse, percentile
from lianzhi.quantize.observers.statistics import ObserverConfig, Statistics, registry

__all__ = [
    "ObserverConfig",
    "Statistics",
    "entropy",
    "minmax",
    "moving_average",
    "mse",
    "percentile",
    "registry",
]
