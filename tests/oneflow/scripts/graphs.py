"""Run by OneFlow's Python: the models of folders as static graphs (`nn.Graph`) give what they give operation by operation."""

import sys
from pathlib import Path

import numpy as np
import oneflow as flow
from outputs import leaves, model_of


class Compiled(flow.nn.Graph):
    """A model compiled as a whole."""

    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def build(self, *tensors):
        return (
            self.model(*tensors)
            if "0" in self.names
            else self.model(**dict(zip(self.names, tensors, strict=True)))
        )


def compare(folder):
    """Compile the model of a folder, and compare it with the outputs that lie there."""
    model = model_of(folder)
    model.load_state_dict(flow.load(str(folder / "weights")))
    model.eval()
    with np.load(folder / "inputs.npz") as arrays:
        names, tensors = list(arrays.files), [flow.tensor(arrays[name]) for name in arrays.files]
    found = leaves(Compiled(model, names)(*tensors))
    with np.load(folder / "outputs.npz") as expected:
        for item, name in zip(found, expected.files, strict=True):
            np.testing.assert_allclose(item.numpy(), expected[name], rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    for folder in map(Path, sys.argv[1:]):
        try:
            compare(folder)
        except Exception as error:
            raise RuntimeError(f"{folder.name}: {error}") from error
