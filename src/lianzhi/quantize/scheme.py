"""A quantization scheme: how many bits, signed or not, symmetric or affine, per tensor or per channel.

``q = clamp(round(x / scale) + zero_point, qmin, qmax)``. Weights are symmetric per output channel;
activations are per tensor, and affine or symmetric by target.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lianzhi import deploy
from lianzhi.errors import RecipeError, did_you_mean


@dataclass(frozen=True)
class Scheme:
    """The integer grid of one kind of tensor.

    >>> Scheme(8, signed=False, symmetric=False).levels, Scheme(7).qmin, Scheme(7).qmax
    (255, -64, 64)
    """

    bits: int
    signed: bool = True
    symmetric: bool = True
    per_channel: bool = False
    narrow: bool = True  # a symmetric grid leaves out its smallest integer
    group_size: int = 0  # of a linear layer's inputs, so many share a scale; 0: all

    @property
    def qmax(self) -> int:
        """The largest integer. A signed grid of 7 bits in an int8 container ends at 64: 255 * 64 * 2 < 2**15."""
        if not self.signed:
            return 2**self.bits - 1
        return 64 if self.bits == 7 else 2 ** (self.bits - 1) - 1

    @property
    def qmin(self) -> int:
        """The smallest integer; a narrow symmetric grid leaves out -128 so that it is symmetric."""
        if not self.signed:
            return 0
        return -self.qmax if self.symmetric and (self.narrow or self.bits == 7) else -(2 ** (self.bits - 1))

    @property
    def levels(self) -> int:
        """How many steps there are from the smallest to the largest integer."""
        return self.qmax - self.qmin

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)

    def __str__(self) -> str:
        container = 8 if self.bits > 4 else 4
        kind = f"{'int' if self.signed else 'uint'}{container}"
        kind += f" ({self.bits} bits)" if self.bits != container else ""
        shape = "symmetric" if self.symmetric else "affine"
        groups = f" and {self.group_size} inputs" if self.group_size else ""
        return f"{kind} {shape} per {'channel' if self.per_channel else 'tensor'}{groups}"


@dataclass(frozen=True)
class Schemes:
    """What a target runs fast; None stays float. `integer_bias`: biases are int32, in the steps of the products."""

    weights: Scheme | None
    activations: Scheme | None
    integer_bias: bool = True


_ACTIVATIONS = {
    "onnxruntime": Scheme(8, signed=False, symmetric=False),
    "openvino": Scheme(8, signed=False, symmetric=False),
    "tensorrt": Scheme(8, narrow=False),
    "pytorch": Scheme(8, signed=False, symmetric=False),
}
_FULL_WEIGHTS = frozenset({"tensorrt", "pytorch"})  # nothing saturates there
_FLOAT_BIAS = frozenset({"tensorrt"})
INTEGERS = ("int8", "int4")
FLOATS = ("float16", "bfloat16", "float32")
WEIGHTS = (*INTEGERS, *FLOATS)
ACTIVATIONS = ("int8", "float")
GROUP_SIZES = (32, 64, 128)


def may_saturate(target: str) -> bool:
    """Whether sums of integer products overflow on some processors of this target.

    >>> may_saturate("openvino"), may_saturate("tensorrt")
    (True, False)
    """
    return deploy.quantized_like(target) not in _FULL_WEIGHTS


def schemes(
    target: str, weights: str, activations: str, *, reduce_range: bool, group_size: int | None = None
) -> Schemes:
    """The schemes of a target.

    >>> print(schemes("onnxruntime", "int8", "int8", reduce_range=True).weights)
    int8 (7 bits) symmetric per channel
    >>> schemes("onnxruntime", "int3", "int8", reduce_range=False)
    Traceback (most recent call last):
        ...
    lianzhi.errors.RecipeError: weights: 'int3' is not offered; known: int8, int4, float16, bfloat16, float32
    """
    like = deploy.quantized_like(target)
    if like not in _ACTIVATIONS:
        raise RecipeError(
            f"quantization for target '{target}' is not offered{did_you_mean(target, _ACTIVATIONS)}"
        )
    for name, given, known in (("weights", weights, WEIGHTS), ("activations", activations, ACTIVATIONS)):
        if given not in known:
            raise RecipeError(f"{name}: '{given}' is not offered; known: {', '.join(known)}")
    if weights in FLOATS and activations != "float":
        raise RecipeError(f"weights: '{weights}' goes with activations='float', not '{activations}'")
    _check_groups(group_size, weights, activations)
    if weights in FLOATS:
        return Schemes(None, None, integer_bias=False)
    saturates = reduce_range and activations == "int8" and may_saturate(target)
    bits = 4 if weights == "int4" else 7 if saturates else 8
    values = _ACTIVATIONS[like] if activations == "int8" else None
    grid = Scheme(bits, per_channel=True, group_size=group_size or 0)
    return Schemes(grid, values, integer_bias=like not in _FLOAT_BIAS)


def _check_groups(group_size: int | None, weights: str, activations: str) -> None:
    if group_size is None:
        return
    if group_size not in GROUP_SIZES:
        raise RecipeError(f"group_size: {group_size} is not offered; known: 32, 64, 128")
    if weights in FLOATS or activations != "float":
        raise RecipeError(
            f"group_size: {group_size} is for integer weights alone (int8 or int4 with activations='float'), "
            f"not for weights '{weights}' with activations '{activations}'; leave it out"
        )
