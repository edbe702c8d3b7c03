"""Pooling, padding of images, and scaling them."""

from __future__ import annotations

from lianzhi.deploy.oneflow.code.call import Call
from lianzhi.deploy.oneflow.code.table import writes


def _windows(call: Call, count: int) -> str:
    """Kernel, and stride, which is the kernel where none is given."""
    stride = call.tuple("stride" if call.value("stride") else "kernel_size", count)
    return f"{call.tuple('kernel_size', count)}, stride={stride}"


@writes("max_pool1d.default", "max_pool2d.default", "max_pool3d.default")
def max_pool(call: Call) -> str:
    """The largest of each window."""
    count = len(call.shape("self")) - 2
    rest = (
        call.unless("padding", 0, count) + call.unless("dilation", 1, count) + call.unless("ceil_mode", False)
    )
    return f"F.max_pool{count}d({call['self']}, {_windows(call, count)}{rest})"


@writes("avg_pool1d.default", "avg_pool2d.default", "avg_pool3d.default")
def avg_pool(call: Call) -> str:
    """The mean of each window."""
    count = len(call.shape("self")) - 2
    rest = (
        call.unless("padding", 0, count)
        + call.unless("ceil_mode", False)
        + call.unless("count_include_pad", True)
    )
    if call.values.get("divisor_override"):
        rest += call.unless("divisor_override", None)
    return f"F.avg_pool{count}d({call['self']}, {_windows(call, count)}{rest})"


@writes("adaptive_avg_pool1d.default", "adaptive_avg_pool2d.default", "adaptive_avg_pool3d.default")
def adaptive_avg_pool(call: Call) -> str:
    """Means over as many windows as are asked for."""
    count = len(call.shape("self")) - 2
    return f"F.adaptive_avg_pool{count}d({call['self']}, {call.tuple('output_size', count)})"


@writes("pad.default", "constant_pad_nd.default")
def pad(call: Call) -> str:
    """Padding by a constant, or by what lies at the rim."""
    mode = call.values.get("mode", "constant")
    if mode not in ("constant", "reflect", "replicate"):
        raise call.refuse(f"pads by '{mode}', which OneFlow does not")
    sides = call.value("pad")
    if mode == "constant":
        value = call.value("value")
        return f"F.pad({call['self']}, {call.tuple('pad', len(sides))}, value={0.0 if value is None else float(value)!r})"
    if len(call.shape("self")) != 4:
        raise call.refuse(f"pads by '{mode}' what is no batch of images, which OneFlow does not")
    return f"F.pad({call['self']}, {call.tuple('pad', len(sides))}, mode={mode!r})"


@writes("upsample_nearest2d.vec", "upsample_bilinear2d.vec")
def upsample(call: Call) -> str:
    """Images scaled to a size."""
    bilinear = "bilinear" in str(call.node.target)
    shown = call.tuple("output_size", 2) if call.value("output_size") is not None else _scaled(call)
    rest = f', mode="bilinear", align_corners={call["align_corners"]}' if bilinear else ', mode="nearest"'
    return f"F.interpolate({call['input']}, size={shown}{rest})"


def _scaled(call: Call) -> str:
    """The size that a factor gives, where it is a whole number: of others the two libraries think differently."""
    sides, factors = call.shape("input")[2:], call.value("scale_factors")
    found = [side * factor for side, factor in zip(sides, factors, strict=True)]
    free = call.value("input").meta["val"].shape[2:]
    if not all(isinstance(side, int) for side in free) or any(side != int(side) for side in found):
        raise call.refuse(
            f"scales images of {' x '.join(map(str, free))} by {factors}; give it the size itself"
        )
    return str(tuple(map(int, found)))
