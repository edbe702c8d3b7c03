"""Scales, rounding and fake quantization against NumPy."""

import numpy as np
import pytest
import torch

from lianzhi.errors import RecipeError
from lianzhi.quantize.affine import (
    DEQUANTIZE,
    FAKE_TENSOR,
    MIN_SCALE,
    dequantize_symmetric,
    fake_quantize,
    qparams,
    quantize_symmetric,
    round_to_grid,
    sqnr,
)
from lianzhi.quantize.scheme import Scheme, schemes

UINT8 = Scheme(8, signed=False, symmetric=False)
AFFINE_INT8 = Scheme(8, symmetric=False)
GRIDS = [UINT8, AFFINE_INT8, Scheme(8), Scheme(7), Scheme(4)]


def numpy_fake(values, scale, zero_point, scheme):
    integers = np.clip(np.round(values / scale) + zero_point, scheme.qmin, scheme.qmax)
    return (integers - zero_point) * scale


@pytest.mark.parametrize("scheme", GRIDS, ids=str)
def test_fake_quantization_is_numpys(scheme):
    values = torch.randn(1000, dtype=torch.float64).float() * 3 + 0.5
    scale, zero_point = qparams(values.min(), values.max(), scheme)
    expected = numpy_fake(values.double().numpy(), float(scale), int(zero_point), scheme)
    got = fake_quantize(values, scale, zero_point, scheme).double().numpy()
    edge = np.isclose(np.abs(values.double().numpy() / float(scale) % 1), 0.5, atol=1e-4)
    np.testing.assert_allclose(got[~edge], expected[~edge], atol=1e-6)
    assert edge.mean() < 0.01


@pytest.mark.parametrize("scheme", GRIDS, ids=str)
def test_invariants_of_a_grid(scheme):
    for low, high in [(-1.0, 2.0), (0.0, 5.0), (-3.0, 0.0), (1.0, 2.0), (-2.0, -1.0)]:
        scale, zero_point = qparams(torch.tensor(low), torch.tensor(high), scheme)
        assert scheme.qmin <= int(zero_point) <= scheme.qmax
        zero = fake_quantize(torch.zeros(1), scale, zero_point, scheme)
        assert zero.item() == 0  # zero is exact, or padding would not be
        values = torch.linspace(low, high, 500)
        if not (scheme.symmetric and not scheme.signed):
            error = (fake_quantize(values, scale, zero_point, scheme) - values).abs().max()
            assert error <= scale * 0.5001 * (1 if scheme.symmetric else 2)
        once = fake_quantize(values, scale, zero_point, scheme)
        torch.testing.assert_close(fake_quantize(once, scale, zero_point, scheme), once, rtol=0, atol=0)


@pytest.mark.parametrize("scheme", GRIDS, ids=str)
def test_a_range_without_width_has_a_positive_scale(scheme):
    scale, zero_point = qparams(torch.zeros(3), torch.zeros(3), scheme)
    assert (scale == MIN_SCALE).all()
    result = fake_quantize(torch.zeros(3, 4), scale, zero_point, scheme)
    assert (result == 0).all()


def test_known_bounds():
    assert (UINT8.qmin, UINT8.qmax) == (0, 255)
    assert (Scheme(8).qmin, Scheme(8).qmax) == (-127, 127)
    assert (AFFINE_INT8.qmin, AFFINE_INT8.qmax) == (-128, 127)
    assert (Scheme(4).qmin, Scheme(4).qmax) == (-7, 7)
    assert 255 * Scheme(7).qmax * 2 < 2**15 <= 255 * Scheme(8).qmax * 2  # why 7 bits do not saturate


def test_per_channel_stored_integers_are_what_fake_quantization_rounds_to():
    weight = torch.randn(5, 4, 3, 3)
    scale = weight.abs().flatten(1).amax(1) / 127
    integers = quantize_symmetric(weight, scale, -127, 127)
    assert int(integers.abs().max()) == 127
    expected = fake_quantize(weight, scale, torch.zeros(5, dtype=torch.int32), Scheme(8))
    torch.testing.assert_close(
        dequantize_symmetric(integers.to(torch.int8), scale), expected, rtol=0, atol=1e-7
    )
    torch.testing.assert_close(DEQUANTIZE(integers.to(torch.int8), scale, 0), expected, rtol=0, atol=1e-7)


def test_gradients_pass_straight_through_inside_the_range():
    values = torch.tensor([-9.0, 0.1, 9.0], requires_grad=True)
    fake_quantize(values, torch.tensor(0.01), torch.tensor(0, dtype=torch.int32), Scheme(8)).sum().backward()
    assert values.grad.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("qmin", "qmax", "zero"), [(0, 255, 113), (-127, 127, 0), (-128, 127, -128), (0, 15, 7)]
)
def test_rounding_to_a_grid_is_pytorchs_fake_quantization(qmin, qmax, zero):
    values = torch.cat(
        [torch.randn(5000) * 10, torch.arange(-300, 300) * 0.05 / 2, torch.tensor([0.0, 1e15, -1e15])]
    )
    for scale in (0.05, 0.0371, 2.0**-32, 3.0):
        grid = (torch.tensor(scale), torch.tensor(zero, dtype=torch.int32), qmin, qmax)
        kept = values if scale > 1e-6 else values / 1e9
        assert torch.equal(round_to_grid(kept, *grid), FAKE_TENSOR(kept, *grid))
        double = kept.double()
        assert torch.equal(round_to_grid(double, *grid), FAKE_TENSOR(double, *grid))


def test_sqnr():
    signal = torch.randn(1000)
    assert sqnr(signal, signal) == 200
    assert sqnr(signal, signal * 0.99) == pytest.approx(40, abs=1e-4)
    assert sqnr(torch.zeros(3), torch.ones(3)) == -200
    uniform = torch.rand(100_000) * 2 - 1
    for bits in (4, 8):
        step = 1 / (2 ** (bits - 1) - 1)
        rounded = fake_quantize(uniform, torch.tensor(step), torch.tensor(0, dtype=torch.int32), Scheme(bits))
        assert sqnr(uniform, rounded) == pytest.approx(10 * np.log10((1 / 3) / (step**2 / 12)), abs=0.1)


@pytest.mark.parametrize(
    ("target", "weights", "activations", "message"),
    [
        (
            "coreml",
            "int8",
            "int8",
            "target 'coreml' is not offered; known: onnxruntime, openvino, pytorch, tensorrt",
        ),
        ("onnxrt", "int8", "int8", "did you mean 'onnxruntime'"),
        ("onnxruntime", "int3", "int8", "weights: 'int3' is not offered; known: int8, int4"),
        ("onnxruntime", "int8", "fp8", "activations: 'fp8' is not offered"),
    ],
)
def test_what_is_not_offered_is_named(target, weights, activations, message):
    with pytest.raises(RecipeError, match=message):
        schemes(target, weights, activations, reduce_range=False)
