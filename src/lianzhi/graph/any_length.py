"""LSTMs are traced for sequences of any length: PyTorch's tracer unrolls them over the length of the example.

It does so only to learn the shapes of what comes out; the op itself stays one node. For a CPU without gradients
it knows a way to learn them that reads no length (oneDNN's layer), and here it is told to take that one always. The
choice has no public name: where it is not found, the length of an LSTM is that of the example, and who asks for a
free one is told so.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def any_length() -> Iterator[None]:
    """Trace LSTMs with a free length in the block.

    ```python
    with any_length(), torch.no_grad():
        torch.export.export(model, (tokens,), dynamic_shapes=({0: Dim.DYNAMIC, 1: Dim.DYNAMIC},), strict=False)
    ```
    """
    try:
        found: Any = importlib.import_module("torch._decomp.decompositions")
        before, layer = found.select_one_layer_lstm_function, found.mkldnn_one_layer_lstm
    except (ImportError, AttributeError):
        yield
        return
    found.select_one_layer_lstm_function = lambda *_: layer
    try:
        yield
    finally:
        found.select_one_layer_lstm_function = before
