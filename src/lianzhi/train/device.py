"""The device that a recipe names, looked for before anything is trained."""

from __future__ import annotations

import torch

from lianzhi.errors import TargetError, did_you_mean

KNOWN = ("cpu", "cuda", "mps", "xpu")


def check_device(device: str) -> torch.device:
    """Return the device, if there is such a one and this machine has it.

    >>> check_device("cpu")
    device(type='cpu')
    >>> check_device("cudda")
    Traceback (most recent call last):
        ...
    lianzhi.errors.TargetError: device 'cudda' is not known; did you mean 'cuda'?
    """
    kind = device.partition(":")[0]
    if kind not in KNOWN:
        raise TargetError(f"device '{device}' is not known{did_you_mean(kind, KNOWN)}")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise TargetError(f"device '{device}' is not known; write it as {kind}, or {kind}:0") from None
    if chosen.type == "cpu":
        return torch.device("cpu")
    backend = getattr(torch, chosen.type)
    if not backend.is_available():
        raise TargetError(
            f"device '{device}' is not on this machine, or this PyTorch ({torch.__version__}) was built "
            f"without it; use device: cpu, or install a PyTorch for it"
        )
    if chosen.index is not None and chosen.index >= backend.device_count():
        raise TargetError(f"device '{device}': this machine has {backend.device_count()} of them, from 0 on")
    return chosen
