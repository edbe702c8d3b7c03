"""LSTMs, written out step by step."""

from __future__ import annotations

from lianzhi.deploy.oneflow.code.call import Call
from lianzhi.deploy.oneflow.code.table import writes


@writes("lstm.input")
def lstm(call: Call) -> str:
    """An LSTM of any number of layers, in one direction or both."""
    each = 4 if call.value("has_biases") else 2
    weights = call.value("params")
    directions = 2 if call.value("bidirectional") else 1
    if len(weights) != each * directions * call.value("num_layers"):
        raise call.refuse("projects its state (proj_size), which is not written")
    layers = [
        ", ".join([*map(call.source, weights[at : at + each]), *["None"] * (4 - each)])
        for at in range(0, len(weights), each)
    ]
    hidden, cell = (call.source(state) for state in call.value("hx"))
    listed = ", ".join(f"({layer})" for layer in layers)
    return call.helper(
        "lstm", call["input"], hidden, cell, f"[{listed}]", str(directions), call["batch_first"]
    )
