"""ONNX files as other tools write them, made node by node."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lianzhi import deploy
from lianzhi.quantize import quantize_onnx
from lianzhi.quantize.onnx_files.prepare import prepared, read_float

rng = np.random.default_rng(0)


def constant(name, values):
    return helper.make_node(
        "Constant", [], [name], value=numpy_helper.from_array(np.array(values, np.float32), name)
    )


def weights(*shape):
    return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def save(path, nodes, inputs, outputs, *, initializers=(), opset=11, ir=7, **kind):
    """`inputs`, `outputs`: name → shape; `kind`: name → ONNX type where it is not float32."""
    described = [
        [
            helper.make_tensor_value_info(name, kind.get(name, TensorProto.FLOAT), shape)
            for name, shape in group.items()
        ]
        for group in (inputs, outputs)
    ]
    tensors = [numpy_helper.from_array(values, name) for name, values in initializers]
    graph = helper.make_graph(nodes, "foreign", *described, initializer=tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    path.write_bytes(model.SerializeToString())
    return path


def residual(path, **options):
    """Weights as Constant nodes, BatchNorm apart from its convolution, a residual sum, a classifier; free batch."""
    nodes = [
        constant("w1", weights(8, 3, 3, 3)),
        constant("gamma", rng.uniform(0.5, 2, 8)),
        constant("beta", rng.normal(size=8)),
        constant("mean", rng.normal(size=8)),
        constant("variance", rng.uniform(0.5, 2, 8)),
        constant("w2", weights(8, 8, 3, 3)),
        constant("b2", rng.normal(size=8)),
        constant("w3", weights(10, 8)),
        constant("b3", rng.normal(size=10)),
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "gamma", "beta", "mean", "variance"], ["n1"]),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1], name="second"),
        helper.make_node("Add", ["c2", "r1"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["y"], transB=1, name="classifier"),
    ]
    return save(path, nodes, {"x": ["n", 3, 12, 12]}, {"y": ["n", 10]}, **options)


def images(count=4, size=12):
    return [rng.normal(size=(8, 3, size, size)).astype(np.float32) for _ in range(count)]


def tokens(path, words=50):
    """Integer inputs of free length, an embedding, products of three dimensions, two of computed values."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], name="words"),
        helper.make_node("MatMul", ["e", "wq"], ["q"], name="query"),
        helper.make_node("Add", ["q", "bq"], ["qb"]),
        helper.make_node("Transpose", ["e"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["qb", "t"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["p"], axis=2),
        helper.make_node("MatMul", ["p", "e"], ["mixed"], name="mix"),
        helper.make_node("MatMul", ["mixed", "wo"], ["y"], name="out"),
    ]
    held = [
        ("table", weights(words, 32)), ("wq", weights(32, 32)), ("bq", weights(32, 1)[:, 0]), ("wo", weights(32, 8))
    ]  # fmt: skip
    return save(
        path,
        nodes,
        {"ids": ["n", "length"]},
        {"y": ["n", "length", 8]},
        initializers=held,
        opset=13,
        ids=TensorProto.INT64,
    )


def branches(path, *, outside=False):
    """An If whose branches hold the layers; with `outside` a convolution stands before it."""
    source = "c" if outside else "x"
    branch = {}
    for kind in ("then", "else"):
        nodes = [
            constant(f"w_{kind}", weights(3, 4)),
            helper.make_node("MatMul", [source, f"w_{kind}"], [f"y_{kind}"]),
        ]
        output = helper.make_tensor_value_info(f"y_{kind}", TensorProto.FLOAT, None)
        branch[f"{kind}_branch"] = helper.make_graph(nodes, kind, [], [output])
    nodes = [helper.make_node("If", ["flag"], ["y"], name="choice", **branch)]
    if outside:
        nodes = [constant("w", weights(2, 2, 1)), helper.make_node("Conv", ["x", "w"], ["c"]), *nodes]
    return save(
        path, nodes, {"x": ["n", 2, 3], "flag": []}, {"y": ["n", 2, 4]}, opset=13, flag=TensorProto.BOOL
    )


def integers(path):
    """The stored int8 weights of a file, by name."""
    return {
        item.name: numpy_helper.to_array(item)
        for item in onnx.load(path).graph.initializer
        if item.data_type == TensorProto.INT8 and len(item.dims) > 1
    }


def wide(path):
    """32 channels: a residual sum, a concatenation, a transposed convolution, and layers too small to gain."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1], name="stem"),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1], name="inner"),
        helper.make_node("Add", ["c2", "r1"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["r2"]),
        helper.make_node("Concat", ["r1", "r2"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "w3"], ["c3"], name="mixing"),
        helper.make_node("ConvTranspose", ["c3", "w4"], ["up"], strides=[2, 2], name="up"),
        helper.make_node("Conv", ["up", "w5"], ["y"], name="narrow"),
    ]
    shapes = {
        "w1": (32, 3, 3, 3),
        "w2": (32, 32, 3, 3),
        "w3": (32, 64, 1, 1),
        "w4": (32, 24, 2, 2),
        "w5": (4, 24, 1, 1),
    }
    held = [*((name, weights(*shape)) for name, shape in shapes.items()), ("b2", weights(32, 1)[:, 0])]
    return save(
        path, nodes, {"x": ["n", 3, 12, 12]}, {"y": ["n", 4, 24, 24]}, initializers=held, opset=17, ir=8
    )


def run(path, batch, runtime="onnxruntime"):
    return deploy.load(path, runtime=runtime)(batch)


def quantized(source, batches, tmp_path, target="onnxruntime", **options):
    """The report and the file, quantized without timing."""
    output = tmp_path / "int8.onnx"
    options = {"measure": False, "reduce_range": False, **options}
    return quantize_onnx(source, batches, target=target, output=output, **options), output


def ready(tmp_path, nodes, held, inputs, outputs, opset=14):
    """A file, and its graph as it is before quantizers are placed."""
    source = save(tmp_path / "f.onnx", nodes, inputs, outputs, initializers=held, opset=opset, ir=8)
    return source, prepared(read_float(source), "f")
