"""Tensors as flat arrays of their bits, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from lianzhi.codebook.values import KINDS, Bits
from lianzhi.errors import ArtifactError
from lianzhi.files.tensors import DTYPES

__all__ = ["DTYPES", "NAMES", "fits", "from_bits", "require_storable", "to_bits"]

NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_DIMS = 16
MAX_ELEMENTS = 1 << 59


def fits(shape: Sequence[int]) -> bool:
    """Whether a file may hold a tensor of this shape.

    >>> fits([3, 0, 2]), fits([1] * 17), fits([0, 2**60])
    (True, False, False)
    """
    # an empty one has strides too
    return len(shape) <= MAX_DIMS and math.prod(size or 1 for size in shape) < MAX_ELEMENTS


def require_storable(tensor: Tensor, name: str) -> None:
    """Raise `ArtifactError` for a tensor, or a name, that no file can hold.

    >>> require_storable(torch.ones([1] * 17), "weight")
    Traceback (most recent call last):
        ...
    lianzhi.errors.ArtifactError: 'weight' of 17 dimensions cannot be packed; reshape it to 16 at most
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise ArtifactError(f"{name!r:.80} cannot be packed: it holds half a character; rename it") from None
    if is_lazy(tensor):
        raise ArtifactError(
            f"'{name}' has no shape yet and cannot be packed; run the model on an example first"
        )
    if tensor.dtype not in NAMES or tensor.layout != torch.strided or tensor.is_meta or tensor.is_nested:
        kind = "nested" if tensor.is_nested else tensor.layout
        raise ArtifactError(
            f"'{name}' of type {tensor.dtype} ({kind}, {tensor.device}) cannot be packed; "
            f"types that can: {', '.join(str(dtype) for dtype in NAMES)}"
        )
    if tensor.numel() and not tensor.data_ptr():
        raise ArtifactError(
            f"'{name}' is a {type(tensor).__name__} without memory of its own and cannot be packed; give the ordinary "
            f"tensor that it stands for (DTensor: full_tensor())"
        )
    if tensor.dim() > MAX_DIMS:
        raise ArtifactError(
            f"'{name}' of {tensor.dim()} dimensions cannot be packed; reshape it to {MAX_DIMS} at most"
        )
    if not fits(tensor.shape):
        raise ArtifactError(
            f"'{name}' of shape {tuple(tensor.shape)} cannot be packed; give fewer than {MAX_ELEMENTS:,} elements"
        )


def to_bits(tensor: Tensor, name: str) -> Bits:
    """All elements in order, as unsigned integers of their size; on the CPU, without a copy where possible.

    >>> to_bits(torch.tensor([1.0, -0.0]), "weight").tolist()
    [1065353216, 2147483648]
    """
    require_storable(tensor, name)
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
