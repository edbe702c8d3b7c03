"""Networks that are quantized and exported once for all tests."""

import numpy as np
import pytest
from nets import made

from lianzhi.quantize import quantize


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """A function of (network, target): its inputs, its quantized form (7-bit weights), and the file of it."""
    kept = {}

    def get(net, target="onnxruntime"):
        if (net, target) not in kept:
            model, inputs = made(net)
            quantized = quantize(model, inputs[:1], list(inputs.split(16)), target=target, reduce_range=True)
            path = quantized.export(tmp_path_factory.mktemp("exported") / "model.onnx")
            kept[net, target] = inputs, quantized, path
        return kept[net, target]

    return get


@pytest.fixture(autouse=True)
def _drawn_alike(monkeypatch):
    """The made-up files and their data are the same in every order of the tests."""
    import foreign

    monkeypatch.setattr(foreign, "rng", np.random.default_rng(0))
