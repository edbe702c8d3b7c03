"""Put quantizers into a file: Q and DQ nodes for values, stored integers for weights and biases."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lianzhi.quantize.affine import MIN_SCALE, qparams, quantize_symmetric
from lianzhi.quantize.insert import BIAS_MAX, BIAS_STEPS
from lianzhi.quantize.onnx_files.net import Net, names_read, subgraphs
from lianzhi.quantize.onnx_files.place import FilePlacement, weight_axis
from lianzhi.quantize.onnx_files.tables import stored_table
from lianzhi.quantize.scheme import Scheme, Schemes

Scales = dict[str, torch.Tensor]


def insert(
    net: Net, placement: FilePlacement, ranges: dict[str, tuple[float, float]], schemes: Schemes
) -> Scales:
    """Quantize the values and weights of a placement, in place; return each weight's scales by its name.

    Everybody reads the quantized value; one that is a result of the model keeps its name behind the quantizer.
    """
    assert schemes.activations is not None
    assert schemes.weights is not None
    inserter = Inserter(net)
    steps: dict[str, torch.Tensor] = {}
    for name in placement.values:
        root = placement.shares.get(name, name)
        if root not in ranges:
            continue
        low, high = ranges[root]
        step, zero_point = qparams(torch.tensor(low), torch.tensor(high), schemes.activations)
        steps[name] = step
        inserter.quantize_value(name, root, step, zero_point, schemes.activations)
    scales: Scales = {}
    by_weight: dict[tuple[str, int], list[Any]] = {}
    for node in placement.weights:
        by_weight.setdefault((node.input[1], weight_axis(net, node)), []).append(node)
    for (name, axis), nodes in by_weight.items():
        read = [(node, steps.get(inserter.source.get(node.input[0], ""))) for node in nodes]
        pairs = [(node, step) for node, step in read if step is not None and schemes.integer_bias]
        scale = _weight_scale(net, name, axis, pairs, schemes.weights)
        scales[name] = scale
        inserter.quantize_weight(name, axis, nodes, scale, schemes.weights)
        for node, step in pairs:
            inserter.quantize_bias(node, scale, step)
    for node in placement.tables:
        inserter.quantize_table(node)
    inserter.finish()
    return scales


def _weight_scale(
    net: Net, name: str, axis: int, pairs: list[tuple[Any, torch.Tensor]], scheme: Scheme
) -> torch.Tensor:
    """One scale an output channel, never so small that the bias, in steps of both scales, leaves int32."""
    weight = torch.from_numpy(np.array(net.array(name)))
    largest = weight.abs().transpose(0, axis).flatten(1).amax(1)
    scale, _ = qparams(-largest, largest, scheme)
    for node, step in pairs:
        bias = _bias(net, node, len(scale))
        if bias is not None:
            least = torch.from_numpy(np.array(bias)).abs() / (step * BIAS_STEPS)
            scale = torch.maximum(scale, least.clamp(min=MIN_SCALE))
    return scale


def _bias(net: Net, node: Any, channels: int) -> np.ndarray | None:
    """The constant that an op with weights adds to its channels."""
    bias = net.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    return bias if bias is not None and bias.shape == (channels,) and bias.dtype == np.float32 else None


class Inserter:
    """Adds nodes and constants; `finish` puts them into order and drops what nobody reads."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.before: dict[int, list[Any]] = {}  # by the id of the node that they stand before
        self.after: dict[str, list[Any]] = {}  # by the value that they read
        self.source: dict[str, str] = {}  # what a reader reads → the value that it stands for
        self.made: set[str] = set()
        self.tables: dict[str, tuple[str, str]] = {}  # name → integers and scales
        taken = {*net.tensors, *net.makers, *net.inputs, *net.nested}
        self.prefix = ""
        while any(name.startswith(self.prefix) for name in taken if name.endswith(_ENDINGS)):
            self.prefix += "q_"

    def quantize_value(
        self, name: str, root: str, step: torch.Tensor, zero_point: torch.Tensor, scheme: Scheme
    ) -> None:
        """A pair of Q and DQ behind a value, with the scale of `root`."""
        kind = np.int8 if scheme.signed else np.uint8
        scale = self._constant(f"{root}_scale", step.numpy().astype(np.float32))
        zero = self._constant(f"{root}_zero_point", zero_point.numpy().astype(kind))
        source, result = name, f"{self.prefix}{name}_dequantized"
        if name in self.net.outputs and name in self.net.makers:
            source, result = f"{self.prefix}{name}_float", name
            maker = self.net.makers[name]
            maker.output[list(maker.output).index(name)] = source
        else:
            for reader in self.net.readers.get(name, []):
                _rename(reader, name, result)
        self.source[result] = name
        integers = f"{self.prefix}{name}_quantized"
        pair = [
            ("QuantizeLinear", [source, scale, zero], integers, f"{name}_Quantize"),
            ("DequantizeLinear", [integers, scale, zero], result, f"{name}_Dequantize"),
        ]
        self.after.setdefault(source, []).extend(_node(*item) for item in pair)

    def quantize_weight(
        self, name: str, axis: int, nodes: list[Any], scale: torch.Tensor, scheme: Scheme
    ) -> None:
        """Nodes read a weight that is stored in int8."""
        weight = torch.from_numpy(np.array(self.net.array(name)))
        integers = quantize_symmetric(weight, scale, scheme.qmin, scheme.qmax, axis).numpy().astype(np.int8)
        key = f"{name}_int8" if f"{self.prefix}{name}_int8" not in self.made else f"{name}_{axis}_int8"
        result = self._stored(key, integers, scale, axis, nodes[0])
        for node in nodes:
            node.input[1] = result

    def quantize_bias(self, node: Any, scale: torch.Tensor, step: torch.Tensor) -> None:
        """A node reads a bias that is stored in int32, in steps of input scale times weight scale."""
        bias = _bias(self.net, node, len(scale))
        if bias is None:
            return
        steps = scale * step
        integers = quantize_symmetric(torch.from_numpy(np.array(bias)), steps, -BIAS_MAX, BIAS_MAX)
        node.input[2] = self._stored(
            f"{node.output[0]}_bias", integers.numpy().astype(np.int32), steps, 0, node
        )

    def quantize_table(self, node: Any) -> None:
        """A node looks up integers, and what it gives is made float, each row with its own scale."""
        name, result = node.input[0], node.output[0]
        if name not in self.tables:
            integers, scale = stored_table(self.net, name)
            self.tables[name] = (
                self._constant(f"{name}_table_int8", integers),
                self._constant(f"{name}_table_scale", scale),
            )
        node.input[0], scales = self.tables[name]
        rows, steps, floats = (
            f"{self.prefix}{result}_rows{end}" for end in ("_quantized", "_scale", "_dequantized")
        )
        node.output[0] = rows
        one = self._constant("rows_of_tables_scale", np.array(1, np.float32))
        zero = self._constant("rows_of_tables_zero_point", np.array(0, np.int8))
        self.after[rows] = [
            _node("DequantizeLinear", [rows, one, zero], floats, f"{result}_rows_Dequantize"),
            _node("Gather", [scales, node.input[1]], steps, f"{result}_rows_Gather"),
            _node("Mul", [floats, steps], result, f"{result}_rows_Mul"),
            *self.after.pop(result, []),
        ]

    def finish(self) -> None:
        """New nodes stand where what they read has been made."""
        graph = self.net.proto.graph
        nodes = [item for name in self.net.inputs for item in self.after.get(name, [])]
        for node in self.net.nodes:
            nodes += [*self.before.get(id(node), []), node]
            nodes += [item for name in node.output for item in self.after.get(name, [])]
        del graph.node[:]
        graph.node.extend(nodes)
        del graph.value_info[:]
        used = {name for node in graph.node for name in node.input} | {item.name for item in graph.output}
        used |= {name for node in graph.node for inner in subgraphs(node) for name in names_read(inner)}
        for tensor in [item for item in graph.initializer if item.name not in used]:
            graph.initializer.remove(tensor)

    def _stored(self, key: str, integers: np.ndarray, scale: torch.Tensor, axis: int, reader: Any) -> str:
        """Store integers and the node that reads them; the name of what it gives."""
        names = [
            self._constant(key, integers),
            self._constant(f"{key}_scale", scale.numpy().astype(np.float32)),
        ]
        if (
            integers.dtype == np.int8
        ):  # ONNX Runtime's Gemm kernel wants the zero point of a weight written out
            names.append(self._constant(f"{key}_zero_point", np.zeros(len(scale), np.int8)))
        result = f"{self.prefix}{key}_dequantized"
        self.before.setdefault(id(reader), []).append(
            _node("DequantizeLinear", names, result, f"{key}_Dequantize", axis=axis)
        )
        return result

    def _constant(self, name: str, values: np.ndarray) -> str:
        import onnx

        name = f"{self.prefix}{name}"
        if name not in self.made:
            self.made.add(name)
            self.net.proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(values), name))
        return name


_ENDINGS = ("_scale", "_zero_point", "_dequantized", "_quantized", "_float", "_int8", "_bias")


def _node(kind: str, inputs: list[str], output: str, name: str, **attributes: int) -> Any:
    import onnx

    return onnx.helper.make_node(kind, inputs, [output], name=name, **attributes)


def _rename(reader: Any, name: str, result: str) -> None:
    for place, value in enumerate(reader.input):
        if value == name:
            reader.input[place] = result
