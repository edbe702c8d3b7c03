"""The zoo: models by name, built from a frozen config, with weights read from a file.

`model` makes one, `registry` knows the names, `describe` tells what a module was made from.
"""

from lianzhi.models import cnn as _cnn
from lianzhi.models.catalog import describe, input_shape, model, registry
from lianzhi.models.weights import load_weights, read_weights

__all__ = ["describe", "input_shape", "load_weights", "model", "read_weights", "registry"]

_cnn.load()
