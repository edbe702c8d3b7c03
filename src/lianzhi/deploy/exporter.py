"""PyTorch's ONNX exporter parses the source of its 500 functions anew at every export; here it does so once.

That takes a second, and a run of several steps exports a model a few times. What it uses for that has no public
name: where it is not found, every export takes its second.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any


@functools.cache
def parse_functions_once() -> bool:
    """Keep the exporter's list of functions. True if it was found.

    >>> parse_functions_once()
    True
    """
    try:
        owner: Any = importlib.import_module("torch.onnx._internal._lazy_import").onnxscript_apis
        owner.get_torchlib_ops = functools.cache(owner.get_torchlib_ops)
    except (ImportError, AttributeError):
        return False
    return True
