"""Say the same with fewer passes over the values, in place: what stands between convolutions is computed in float.

- A convolution, then a scale or a shift a channel or in all: taken into its weight and bias,
  ``w' = w * s``, ``b' = b * s + t``.
- A scale and a shift of one number each, then a convolution without padding: ``w' = w * s``, ``b' = b + t * Σw``.
  With padding it would not be the same, as the padded zeros are not shifted.
- ``x * clip(x + 3, 0, 6) / 6`` in four ops: one HardSwish, before opset 14 ``x * HardSigmoid(x)``.

ONNX Runtime's own rules leave these alone where the numbers are vectors of one element.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lianzhi.quantize.onnx_files.net import Net, attribute, opset

HARD_SWISH = 14  # the opset that brought it
SCALES, SHIFTS = frozenset({"Mul", "Div"}), frozenset({"Add", "Sub"})


def fold(proto: Any) -> int:
    """Apply the rules until none does anything; return how often they did."""
    done = 0
    while True:
        net = Net(proto)
        changed = sum(_step(net, node) for node in net.nodes)
        if not changed:
            return done
        done += changed
        _clean(proto)


def _step(net: Net, node: Any) -> int:
    """Apply one rule at a node. What it changed is not seen by the net: a node is changed once a round."""
    if node.op_type == "Conv":
        return int(_into(net, node) or _back(net, node))
    return int(_hard_swish(net, node)) if node.op_type == "Clip" else 0


def _into(net: Net, conv: Any) -> bool:
    """The op that alone reads a convolution goes into it."""
    weight, bias = _weights(net, conv)
    if weight is None or not net.read_once(conv.output[0]):
        return False
    reader = net.readers[conv.output[0]][0]
    affine = _affine(net, reader, conv.output[0])
    if affine is None:
        return False
    scale, shift = (_a_channel(value, weight.shape) for value in affine)
    if scale is None or shift is None:
        return False
    shaped = scale.reshape(-1, *[1] * (weight.ndim - 1))
    _store(net, conv, weight * shaped, bias * scale + shift)
    conv.output[0] = _retire(reader)
    return True


def _back(net: Net, conv: Any) -> bool:
    """One number in all, before a convolution without padding that alone reads it."""
    weight, bias = _weights(net, conv)
    maker = net.makers.get(conv.input[0])
    padded = any(attribute(conv, "pads", [])) or attribute(conv, "auto_pad", b"NOTSET") not in (
        b"NOTSET",
        b"VALID",
    )
    if weight is None or maker is None or padded or not net.read_once(conv.input[0]):
        return False
    source = next((name for name in maker.input if net.computed(name)), "")
    affine = _affine(net, maker, source)
    if affine is None or any(value.size != 1 for value in affine) or net.ranks.get(source) != weight.ndim:
        return False
    scale, shift = (float(value.reshape(-1)[0]) for value in affine)
    _store(net, conv, weight * scale, bias + shift * weight.sum(axis=tuple(range(1, weight.ndim))))
    conv.input[0] = source
    _retire(maker)
    return True


def _hard_swish(net: Net, clip: Any) -> bool:
    """Four ops around a Clip become one, or two where the file is older than that op (opset 14)."""
    shifted = net.makers.get(clip.input[0])
    bounds = [_number(net, name) for name in clip.input[1:]]
    if bounds != [0.0, 6.0] or shifted is None or shifted.op_type != "Add":
        return False
    values = [name for name in shifted.input if net.computed(name)]
    three = [_number(net, name) for name in shifted.input if not net.computed(name)]
    alone = net.read_once(clip.input[0]) and net.read_once(clip.output[0])
    if len(values) != 1 or three != [3.0] or not alone or not net.is_float(values[0]):
        return False
    value, first = values[0], net.readers[clip.output[0]][0]
    if not first.op_type or not net.read_once(first.output[0]):
        return False
    second = net.readers[first.output[0]][0]
    begins = first.op_type == "Mul" and value in first.input
    product, sixth, source = (first, second, first.output[0]) if begins else (second, first, clip.output[0])
    if product.op_type != "Mul" or value not in product.input or not _is_a_sixth(net, sixth, source):
        return False
    _retire(shifted)
    _retire(first)
    del clip.input[:], clip.attribute[:]
    clip.input.append(value)
    if opset(net.proto) >= HARD_SWISH:
        clip.op_type, clip.output[0] = "HardSwish", _retire(second)
        return True
    clip.op_type, second.op_type = "HardSigmoid", "Mul"
    _set(clip, alpha=1 / 6, beta=0.5)
    second.input[:] = [value, clip.output[0]]
    return True


def _is_a_sixth(net: Net, node: Any, name: str) -> bool:
    affine = _affine(net, node, name)
    if affine is None or affine[0].size != 1 or affine[1].any():
        return False
    return abs(float(affine[0].reshape(-1)[0]) * 6 - 1) < 1e-6


def _affine(net: Net, node: Any, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """An op with a constant as a scale and a shift of `name`, in float64."""
    if node.op_type not in SCALES | SHIFTS or len(node.input) != 2 or list(node.input).count(name) != 1:
        return None
    first = node.input[0] == name
    constant = net.array(node.input[1] if first else node.input[0])
    if constant is None or constant.dtype != np.float32 or (not first and node.op_type in ("Div", "Sub")):
        return None
    value, zero, one = constant.astype(np.float64), np.zeros(1), np.ones(1)
    if node.op_type == "Div" and not value.all():
        return None
    scales = {"Mul": lambda: (value, zero), "Div": lambda: (1 / value, zero)}
    shifts = {"Add": lambda: (one, value), "Sub": lambda: (one, -value)}
    return (scales | shifts)[node.op_type]()


def _a_channel(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """A constant as one number an output channel, if it is broadcast so."""
    channels, rank = shape[0], len(shape)
    if value.size == 1 and value.ndim <= rank:
        return np.full(channels, value.reshape(-1)[0])
    padded = (1,) * (rank - value.ndim) + value.shape
    return value.reshape(-1) if padded == (1, channels, *[1] * (rank - 2)) else None


def _weights(net: Net, conv: Any) -> tuple[np.ndarray | None, np.ndarray]:
    """Weight and bias in float64; None unless both are constants that nobody else reads."""
    names = [name for name in conv.input[1:] if name]
    arrays = [net.array(name) for name in names]
    if not arrays or any(item is None or item.dtype != np.float32 for item in arrays):
        return None, np.zeros(0)
    if any(not net.read_once(name) for name in names):
        return None, np.zeros(0)
    weight = np.asarray(arrays[0], np.float64)
    return weight, np.asarray(arrays[1], np.float64) if len(arrays) > 1 else np.zeros(len(weight))


def _store(net: Net, conv: Any, weight: np.ndarray, bias: np.ndarray) -> None:
    import onnx

    if len(conv.input) < 3 or not conv.input[2]:
        del conv.input[2:]
        conv.input.append(_free(net, f"{conv.input[1]}_bias"))
        net.proto.graph.initializer.append(onnx.TensorProto(name=conv.input[2]))
    for tensor in net.proto.graph.initializer:
        for name, values in ((conv.input[1], weight), (conv.input[2], bias)):
            if tensor.name == name:
                tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), name))


def _free(net: Net, name: str) -> str:
    while name in net.tensors or name in net.makers or name in net.inputs or name in net.nested:
        name += "_"
    return name


def _number(net: Net, name: str) -> float | None:
    value = net.array(name)
    return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None


def _set(node: Any, **attributes: float) -> None:
    import onnx

    node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in attributes.items())


def _retire(node: Any) -> str:
    """Mark a node as dropped; the name of what it made is free."""
    name = str(node.output[0])
    node.op_type = ""
    return name


def _clean(proto: Any) -> None:
    """Remove the dropped nodes, and constants that nobody reads."""
    kept = [node for node in proto.graph.node if node.op_type]
    copies = [type(node).FromString(node.SerializeToString()) for node in kept]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)
    net = Net(proto)
    for tensor in [item for item in proto.graph.initializer if item.name not in net.readers]:
        if tensor.name not in net.nested | net.outputs:
            proto.graph.initializer.remove(tensor)
