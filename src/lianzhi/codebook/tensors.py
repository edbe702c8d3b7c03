"""Tensors as flat arrays of their bits, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from lianzhi.codebook.values import KINDS, Bits
from lianzhi.errors import ArtifactError
from lianzhi.files.tensors import DTYPES

__all__ = ["DTYPES", "NAMES", "from_bits", "to_bits"]

NAMES = {dtype: name for name, dtype in DTYPES.items()}


def to_bits(tensor: Tensor, name: str) -> Bits:
    """All elements in order, as unsigned integers of their size; on the CPU, without a copy where possible.

    >>> to_bits(torch.tensor([1.0, -0.0]), "weight").tolist()
    [1065353216, 2147483648]
    """
    if tensor.dtype not in NAMES or tensor.layout != torch.strided or tensor.is_meta:
        raise ArtifactError(
            f"'{name}' of type {tensor.dtype} ({tensor.layout}, {tensor.device}) cannot be packed; "
            f"types that can: {', '.join(str(dtype) for dtype in NAMES)}"
        )
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    if tensor.dtype == torch.bool:  # any other byte than 0 is true
        return (flat.view(torch.uint8) != 0).view(torch.uint8).numpy()
    return flat.view(torch.uint8).numpy().view(KINDS[tensor.element_size()])


def from_bits(bits: Bits, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """The tensor whose bits these are.

    >>> from_bits(to_bits(torch.eye(2), "weight"), torch.float32, (2, 2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    if dtype == torch.bool and int(bits.max(initial=0)) > 1:
        raise ArtifactError("a truth value is neither 0 nor 1")
    if not len(bits):
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(bits.view("<u1")).view(dtype).reshape(shape)
