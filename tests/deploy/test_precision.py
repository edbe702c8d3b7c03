"""What a file holds, by its tensors: quantizers, integers of weights alone, floats of 16 bits."""

import numpy as np
import onnx
import pytest

from lianzhi import deploy
from lianzhi.precisions import PRECISIONS

helper, T = onnx.helper, onnx.TensorProto


def written(folder, tensors, *, quantized=False, constants=False):
    """A file that sums its input and these weights; integers come by way of DequantizeLinear."""
    nodes, held = [], []
    for index, kind in enumerate(tensors):
        name, values = f"w{index}", np.ones((2, 4))
        tensor = helper.make_tensor(name, kind, values.shape, values.flatten())
        if constants:
            nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            held.append(tensor)
        if kind in (T.FLOAT16, T.BFLOAT16):
            nodes.append(helper.make_node("Cast", [name], [f"f{index}"], to=T.FLOAT))
        elif kind != T.FLOAT:
            held.append(helper.make_tensor(f"s{index}", T.FLOAT, [], [0.5]))
            nodes.append(helper.make_node("DequantizeLinear", [name, f"s{index}"], [f"f{index}"]))
        nodes.append(helper.make_node("Add", [f"x{index}", f"{'w' if kind == T.FLOAT else 'f'}{index}"], [f"x{index + 1}"]))  # fmt: skip
    if quantized:
        held += [helper.make_tensor("s", T.FLOAT, [], [0.5]), helper.make_tensor("z", T.UINT8, [], [0])]
        nodes.insert(0, helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]))
        nodes.insert(1, helper.make_node("DequantizeLinear", ["q", "s", "z"], ["x0"]))
    first = "x" if quantized else "x0"
    ports = [helper.make_tensor_value_info(name, T.FLOAT, [2, 4]) for name in (first, f"x{len(tensors)}")]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], held)
    path = folder / "m.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("constants", [False, True])
@pytest.mark.parametrize(
    ("tensors", "quantized", "expected"),
    [
        ([T.FLOAT], False, "f32"),
        ([T.INT8, T.FLOAT], True, "int8"),
        ([T.FLOAT], True, "int8"),
        ([T.INT4], True, "int4"),
        ([T.UINT4, T.INT8], True, "mixed"),
        ([T.UINT8, T.FLOAT], False, "int8-weights"),
        ([T.INT4, T.FLOAT], False, "int4-weights"),
        ([T.INT4, T.INT8], False, "mixed-weights"),
        ([T.FLOAT16], False, "f16-weights"),
        ([T.BFLOAT16], False, "bf16-weights"),
        ([T.INT8, T.INT32], False, "int8-weights"),
    ],
)
def test_what_a_file_holds(tmp_path, tensors, quantized, expected, constants):
    path = written(tmp_path, tensors, quantized=quantized, constants=constants)
    assert deploy.held_precision(path) == expected
    assert expected in PRECISIONS
    for name in deploy.onnx_targets():
        offered = deploy.registry.get(name).build.precisions(path)
        assert offered[0] == expected
        assert expected == "f32" or len(offered) == 1


def test_a_session_has_the_name(tmp_path):
    path = written(tmp_path, [T.INT4])
    for name in ("onnxruntime", "openvino"):
        assert deploy.load(path, runtime=name).precision == "int4-weights"


def test_the_targets_of_onnx_files():
    assert set(deploy.onnx_targets()) - set(deploy.onnx_runtimes()) == {"tensorrt"}
