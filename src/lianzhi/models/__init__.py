"""The zoo: models by name, built from a frozen config, with weights read from a file.

`model` makes one, `registry` knows the names, `describe` tells what a module was made from.
"""

from lianzhi.models import cnn as _cnn
from lianzhi.models import text as _text
from lianzhi.models.catalog import (
    check_saved,
    describe,
    input_shape,
    model,
    registry,
    remarks,
    word_options,
)
from lianzhi.models.renew import renew
from lianzhi.models.weights import load_weights, read_weights

__all__ = [
    "check_saved",
    "describe",
    "input_shape",
    "load_weights",
    "model",
    "read_weights",
    "registry",
    "remarks",
    "renew",
    "word_options",
]

_cnn.load()
_text.load()
