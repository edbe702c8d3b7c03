"""Run by OneFlow's Python: what the models of folders give for their inputs.npz, into their outputs.npz."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import oneflow as flow


def model_of(folder):
    """The model of a folder's model.py, without weights."""
    spec = importlib.util.spec_from_file_location("model", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Model()


def leaves(value):
    """The tensors in a value, in their order."""
    if isinstance(value, dict):
        value = list(value.values())
    return [item for part in value for item in leaves(part)] if isinstance(value, (list, tuple)) else [value]


def write_outputs(model, inputs, file):
    """Call a model in eval mode with the arrays of a file, by keyword where they have names."""
    with np.load(inputs) as arrays:
        tensors = {name: flow.tensor(arrays[name]) for name in arrays.files}
    model.eval()
    with flow.no_grad():
        found = model(*tensors.values()) if "0" in tensors else model(**tensors)
    np.savez(file, *[item.numpy() for item in leaves(found)])


if __name__ == "__main__":
    for folder in map(Path, sys.argv[1:]):
        try:
            model = model_of(folder)
            model.load_state_dict(flow.load(str(folder / "weights")))
            write_outputs(model, folder / "inputs.npz", folder / "outputs.npz")
        except Exception as error:
            raise RuntimeError(f"{folder.name}: {error}") from error
