"""Peak memory of one forward pass.

For a file: the growth of the resident set of a fresh process, from after the libraries are imported to the
peak while loading and running. For a module: the most bytes of tensors that are alive at one time, weights
included, counted op by op. The two are different quantities and are never compared with each other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lianzhi.deploy.pytorch import call
from lianzhi.errors import TargetError

_CHILD = """
import json, resource, sys
request = json.loads(sys.argv[1])
import numpy
from lianzhi import deploy
deploy.registry.get(request["runtime"]).build.precisions(request["path"])
__import__(request["runtime"].replace("pytorch", "torch"))

def peak():
    try:
        lines = open("/proc/self/status").read().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

inputs = {name: numpy.zeros(shape, dtype) for name, shape, dtype in request["inputs"]}
try:
    open("/proc/self/clear_refs", "w").write("5")
except OSError:
    pass
before = peak()
options = {key: request[key] for key in ("runtime", "precision", "threads")}
session = deploy.load(request["path"], **options)
session(inputs if request["named"] else tuple(inputs.values()))
sys.stdout.write(json.dumps(peak() - before))
"""


def memory(
    model_or_path: nn.Module | str | os.PathLike[str],
    example_inputs: Any,
    *,
    runtime: str = "pytorch",
    precision: str | None = None,
    threads: int | None = None,
) -> int:
    """Peak bytes that one forward pass needs. See the module's text for what is counted.

    >>> memory(nn.Linear(4, 3, bias=False), torch.zeros(2, 4))       # 12 weights, 8 inputs, 6 outputs
    104
    """
    if isinstance(model_or_path, nn.Module):
        return _tensors_alive(model_or_path, example_inputs)
    return _resident(Path(model_or_path), example_inputs, runtime, precision, threads)


class _Alive(TorchDispatchMode):
    """Counts the bytes of storages from the op that makes them until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: dict[int, int] = {}

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.seen:
            return
        size = storage.nbytes()
        self.seen[key] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, key)

    def _freed(self, key: int) -> None:
        self.now -= self.seen.pop(key, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return result


def _tensors_alive(model: nn.Module, inputs: Any) -> int:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    counter = _Alive()
    try:
        for tensor in (*model.parameters(), *model.buffers(), *tree_leaves(inputs)):
            if isinstance(tensor, torch.Tensor):
                counter.add(tensor)
        with torch.no_grad(), counter:
            call(model, inputs)
    finally:
        model.train(modes[0][1])
        for module, training in modes[1:]:
            module.training = training
    return counter.peak


def _resident(path: Path, inputs: Any, runtime: str, precision: str | None, threads: int | None) -> int:
    named = isinstance(inputs, dict)
    values = inputs if named else dict(enumerate(inputs if isinstance(inputs, (tuple, list)) else [inputs]))
    request = {
        "path": str(path.resolve()),
        "runtime": runtime,
        "precision": precision,
        "threads": threads,
        "named": named,
        "inputs": [
            (name, list(value.shape), str(value.dtype).removeprefix("torch."))
            for name, value in values.items()
        ],
    }
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(item for item in sys.path if item)}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, json.dumps(request)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["killed"])[-1]
        raise TargetError(f"{path}: memory on {runtime} cannot be measured: {reason}")
    return int(json.loads(done.stdout.strip().splitlines()[-1]))
