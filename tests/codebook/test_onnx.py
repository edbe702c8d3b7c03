import numpy as np
import onnx
import torch
from torch import nn

import lianzhi as lz
from lianzhi.codebook.sharing import share_values


def shared(bits):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 60), nn.Linear(60, 10)
    )
    with torch.no_grad():
        model[3].weight[torch.rand_like(model[3].weight) < 0.8] = 0
        for layer in (model[0], model[3]):
            layer.weight.copy_(share_values(layer.weight, bits))
    return model.eval()


def outputs(path, x):
    return lz.deploy.load(path, runtime="onnxruntime", threads=1)(x)


def test_codes_compute_the_same_as_the_dense_file(tmp_path):
    x = torch.randn(4, 3, 8, 8)
    for bits, size in ((5, 0.35), (10, 0.65)):
        model = shared(bits)
        codes = lz.codebook.export_onnx(model, x[:1], tmp_path / "codes.onnx")
        dense = lz.codebook.export_onnx(model, x[:1], tmp_path / "dense.onnx", codes=False)
        assert codes.stat().st_size < size * dense.stat().st_size
        assert torch.equal(outputs(codes, x), outputs(dense, x))
        with torch.no_grad():
            assert torch.allclose(outputs(codes, x), model(x), atol=1e-5)
        proto = onnx.load(codes)
        onnx.checker.check_model(proto)
        gathers = [node for node in proto.graph.node if node.op_type == "Gather"]
        held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
        books = [held[node.input[0]] for node in gathers]
        assert 1 <= len(books) <= 2
        assert all(len(book) <= 2**bits for book in books)
        assert {array.dtype for name, array in held.items() if name.endswith("codes")} == {
            np.dtype(np.uint8 if bits <= 8 else np.uint16)
        }


def test_weights_of_many_values_stay_dense(tmp_path):
    model, x = nn.Linear(64, 64).eval(), torch.randn(3, 64)
    path = lz.codebook.export_onnx(model, x[:1], tmp_path / "m.onnx")
    assert not [node for node in onnx.load(path).graph.node if node.op_type == "Gather"]
    with torch.no_grad():
        assert torch.allclose(outputs(path, x), model(x), atol=1e-5)


def test_weights_of_half_and_double_precision_become_codes_too(tmp_path):
    for dtype, width in ((torch.half, 2), (torch.double, 8)):
        layer = nn.Linear(64, 64, bias=False)
        layer.weight.data.copy_(share_values(layer.weight, 3))
        layer, x = layer.to(dtype).eval(), torch.randn(3, 64).to(dtype)
        dense = lz.codebook.export_onnx(layer, x[:1], tmp_path / "dense.onnx", codes=False)
        codes = lz.codebook.export_onnx(layer, x[:1], tmp_path / "codes.onnx")
        assert dense.stat().st_size - codes.stat().st_size > (width - 1) * 64 * 64 - 1000
        assert torch.equal(outputs(codes, x), outputs(dense, x))
