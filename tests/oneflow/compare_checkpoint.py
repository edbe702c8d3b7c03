"""Run by OneFlow's Python: what `oneflow.load(folder)` gives is what an .npz file has, name by name and bit by bit.

python compare_checkpoint.py FOLDER EXPECTED.npz
"""

from __future__ import annotations

import sys


def compare(folder: str, expected: str) -> int:
    """How many tensors were compared; the first that differs ends it with an error that names it."""
    import numpy as np
    import oneflow as flow

    loaded = flow.load(folder)
    with np.load(expected) as arrays:
        assert list(loaded) == list(arrays), f"names: {list(loaded)} and {list(arrays)}"
        for name, tensor in loaded.items():
            found, array = tensor.numpy(), arrays[name]
            assert isinstance(tensor, flow.Tensor), f"{name!r} is a {type(tensor)}"
            assert found.dtype == array.dtype, f"{name!r}: {found.dtype} and {array.dtype}"
            assert found.shape == array.shape, f"{name!r}: {found.shape} and {array.shape}"
            assert found.tobytes() == array.tobytes(), f"{name!r} has other values"
    return len(loaded)


if __name__ == "__main__":
    sys.stdout.write(f"{compare(*sys.argv[1:3])} tensors are equal\n")
