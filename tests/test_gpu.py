"""On an NVIDIA GPU: a run trains there, what is given there is taken, and TensorRT executes what it built."""

import copy

import pytest
import torch
from torch import nn

import lianzhi as lz
from lianzhi import deploy, quantize
from lianzhi.codebook.masks import magnitude_mask, weights_of
from lianzhi.codebook.moving import follow
from lianzhi.codebook.rated import rated
from lianzhi.codebook.sharing import share, share_values
from lianzhi.errors import TargetError
from lianzhi.quantize.qat.lsq import lsq

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
MEASURE = lz.Measure(batches=(1,), repeats=2, max_drop=1.0)
FAST = {"epochs": 1, "batch_size": 32, "lr": 0.02}


class Net(nn.Module):
    """A residual CNN with 16 channels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.conv = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = torch.relu(self.bn(self.stem(x)))
        x = torch.relu(x + self.bn2(self.conv(x)))
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def task():
    return lz.task("synthetic", samples=256, classes=3, shape=(3, 8, 8))


def test_a_whole_run_trains_on_the_gpu(task, tmp_path):
    steps = [
        lz.Train(**FAST),
        lz.Sparsify(**FAST),
        lz.Prune(criterion="taylor", ratio=0.25),
        lz.Distill(**FAST),
        lz.Quantize(method="qat", calibration=32, **FAST),
    ]
    model = Net()
    result = lz.compress(
        model, task, steps, output=tmp_path / "o", measure=MEASURE, device="cuda", progress=False
    )
    assert result.report.rows[-1]["value"] is not None
    assert all(not tensor.is_cuda for tensor in result.model.state_dict().values())
    assert all(not tensor.is_cuda for tensor in model.state_dict().values())


def test_deep_compression_trains_on_the_gpu(task, tmp_path):
    steps = [
        lz.Prune(granularity="weight", ratio=0.6, gradual=0.5, every=2, refine=lz.Distill(**FAST)),
        lz.Train(**FAST),
        lz.ShareWeights(bits=3, groups=2, epochs=1, batch_size=32),
        lz.Pack(),
    ]
    result = lz.compress(
        Net(),
        task,
        steps,
        output=tmp_path / "o",
        measure=MEASURE,
        target="pytorch",
        device="cuda",
        progress=False,
    )
    weights = weights_of(result.model)
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    assert zeros == pytest.approx(0.6 * sum(weight.numel() for weight in weights.values()), abs=1)
    assert all(len(weight.unique()) <= 15 for weight in weights.values())


@pytest.mark.parametrize("init", ["linear", "density", "random", "kmeans++", "optimal"])
def test_sharing_gives_the_same_on_the_gpu(init):
    weight = torch.randn(64, 300, generator=torch.Generator().manual_seed(0))
    weight[weight.abs() < 0.5] = 0.0
    here, there = (share_values(one, 4, init=init) for one in (weight, weight.cuda()))
    torch.testing.assert_close(there.cpu(), here, rtol=1e-5, atol=1e-6)
    mask = magnitude_mask(weight, 0.7)
    assert torch.equal(magnitude_mask(weight.cuda(), 0.7).cpu(), mask)


@pytest.mark.parametrize("rate", [1.5, 7.5])
def test_a_rate_gives_the_same_on_the_gpu(rate):
    weight = torch.randn(64, 300, generator=torch.Generator().manual_seed(0))
    weight[weight.abs() < 0.3] = 0.0
    here, there = (rated(one.flatten(), rate).nearest(one) for one in (weight, weight.cuda()))
    torch.testing.assert_close(there.cpu(), here, rtol=1e-5, atol=1e-6)
    layers = torch.nn.Linear(300, 64), torch.nn.Linear(300, 64).cuda()
    for layer in layers:
        layer.weight.data.copy_(weight)
        share(layer, rate={"weight": rate}, moving=True)
        for _ in range(3):
            follow(layer)
    torch.testing.assert_close(layers[1].weight.cpu(), layers[0].weight, rtol=1e-5, atol=1e-6)


def test_a_model_that_is_on_the_gpu(task, tmp_path):
    model = Net().cuda().eval()
    steps = [lz.Prune(ratio=0.25), lz.Quantize(calibration=32)]
    lz.compress(model, task, steps, output=tmp_path / "o", measure=MEASURE, progress=False)
    assert next(model.parameters()).is_cuda
    inputs = torch.cat([batch.inputs for batch in task.batches("calibration", 32)])
    quantized = quantize.quantize(model, inputs[:1], [inputs])
    here = quantize.quantize(copy.deepcopy(model).cpu(), inputs[:1], [inputs])
    found = deploy.load(quantized.export(tmp_path / "gpu.onnx"), runtime="onnxruntime")(inputs)
    expected = deploy.load(here.export(tmp_path / "cpu.onnx"), runtime="onnxruntime")(inputs)
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    assert next(model.parameters()).is_cuda


def test_learned_steps_are_those_of_the_cpu():
    values, scale = torch.randn(64, 33), torch.rand(33) + 0.05
    zero = torch.zeros(33, dtype=torch.int32)
    results = []
    for device in ("cpu", "cuda"):
        given = [item.to(device).requires_grad_() for item in (values.clone(), scale.clone())]
        out = lsq(given[0], given[1], zero.to(device), -4, 3, 1)
        out.square().sum().backward()
        results.append([out.detach().cpu(), *(item.grad.cpu() for item in given)])
    for here, there in zip(*results, strict=True):
        torch.testing.assert_close(here, there)


@pytest.mark.filterwarnings("ignore")  # the compiler's advice on TensorFloat32
@pytest.mark.parametrize("compiled", [False, True])
def test_pytorch_runs_there(compiled):
    model, inputs = Net().eval(), torch.randn(4, 3, 8, 8)
    expected = deploy.load(model, runtime="pytorch")(inputs)
    session = deploy.load(copy.deepcopy(model), runtime="pytorch", device="cuda", compiled=compiled)
    found = session(inputs)
    assert not found.is_cuda
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
    assert lz.measure.latency(model, inputs, runtime="pytorch", device="cuda", repeats=3).median_ms > 0


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_tensorrt_executes(kind, tmp_path):
    if not deploy.registry.get("tensorrt").build.installed():
        pytest.skip("tensorrt is not installed")
    model, inputs = Net().eval(), torch.randn(8, 3, 8, 8)
    if kind == "float":
        file = deploy.export_onnx(model, inputs[:1], tmp_path / "m.onnx")
    else:
        file = quantize.quantize(model, inputs[:1], [inputs], target="tensorrt").export(tmp_path / "m.onnx")
    try:
        session = deploy.load(file, runtime="tensorrt")
    except TargetError as error:
        pytest.skip(str(error))
    expected = deploy.load(file, runtime="onnxruntime")(inputs)
    assert (session(inputs) - expected).abs().max() < 0.02 * expected.abs().max()
    assert session(inputs[:3]).shape == (3, 3)
    with pytest.raises(lz.DataError, match="was built for"):
        session(torch.randn(100, 3, 8, 8))
