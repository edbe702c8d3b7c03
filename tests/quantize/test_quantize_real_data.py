"""ResNet-20 with published weights on CIFAR-10: the bars of post-training quantization."""

import pytest
import torch

from lianzhi import deploy, measure
from lianzhi.models import model as zoo
from lianzhi.quantize import lint, quantize
from lianzhi.tasks import task as make_task

SAMPLES = 2000


@pytest.fixture(scope="module")
def loaded(real_data):
    folder = real_data / "cifar10"
    task = make_task("cifar10", data=str(folder), limit=SAMPLES)
    model = zoo("resnet20", weights=folder / "resnet20.safetensors").eval()
    calibration = [batch.inputs for batch in task.batches("calibration", 64)][:8]
    return task, model, calibration


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_resnet20_loses_nothing_and_is_a_quarter_in_size(loaded, target, tmp_path):
    task, model, calibration = loaded
    exact = measure.evaluate(model, task)
    assert exact.samples == SAMPLES
    quantized = quantize(model, task.example_inputs, calibration, target=target)
    path = quantized.export(tmp_path / "int8.onnx")
    float_path = deploy.export_onnx(model, task.example_inputs, tmp_path / "float.onnx")
    session = deploy.load(path, runtime=target)
    assert measure.evaluate(quantized.model, task).value >= exact.value - 0.003
    assert measure.evaluate(session, task).value >= exact.value - 0.003
    assert measure.size(path) <= 0.3 * measure.size(float_path)
    assert lint(path, target) == []
    inputs = torch.cat([batch.inputs for batch in task.batches("test", 250)])
    with torch.no_grad():
        simulated, floating = quantized.model(inputs).argmax(1), model(inputs).argmax(1)
    agreement = (session(inputs).argmax(1) == simulated).float().mean()
    assert agreement >= 0.99
    assert (simulated == floating).float().mean() >= 0.97


@pytest.mark.data
def test_eight_bit_weights_saturate_here_and_seven_do_not(loaded, tmp_path):
    """On x86 without VNNI the runtimes' sums overflow with 8 bits; the lint says so, 7 bits mend it."""
    if not measure.cpu().saturates:
        pytest.skip("this processor does not saturate")
    task, model, calibration = loaded
    inputs = torch.cat([batch.inputs for batch in task.batches("test", 250)])
    agreement = {}
    for reduce_range in (False, True):
        quantized = quantize(model, task.example_inputs, calibration, reduce_range=reduce_range)
        path = quantized.export(tmp_path / "int8.onnx")
        with torch.no_grad():
            simulated = quantized.model(inputs).argmax(1)
        found = deploy.load(path, runtime="onnxruntime")(inputs).argmax(1)
        agreement[reduce_range] = float((found == simulated).float().mean())
        assert bool(lint(path, "onnxruntime")) is not reduce_range
    assert agreement[True] > 0.99
    assert agreement[False] < agreement[True] - 0.02
