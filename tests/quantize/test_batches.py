"""Of calibration batches: the first samples, and parts of which every one gives what the whole gives."""

import numpy as np
import pytest
import torch
from nets import Inverted, Residual, made
from torch import nn

from lianzhi.graph import capture
from lianzhi.quantize import batches as batches_module
from lianzhi.quantize import quantize
from lianzhi.quantize.batches import few, parts, samples
from lianzhi.quantize.calibrate import observe


def lengths(batches):
    return [samples([batch]) for batch in batches]


def test_batches_stay_whole_since_a_model_may_fix_their_size():
    batches = [[torch.zeros(7, 2)] for _ in range(50)]
    assert lengths(few(batches, 300)) == [7] * 42
    assert lengths(few([[torch.zeros(400, 2)]], 300)) == [400]
    assert lengths(few(batches, 0)) == [7]


def test_batches_that_are_divisible_give_so_many_samples():
    batches = [[torch.arange(4), torch.tensor(3)], [torch.arange(4), torch.tensor(3)]]
    chosen = few(batches, 6, divisible=True)
    assert [batch[0].tolist() for batch in chosen] == [[0, 1, 2, 3], [0, 1]]
    assert chosen[1][1] == 3
    assert lengths(few(batches, 4, divisible=True)) == [4]


def test_batches_of_a_file():
    batches = [{"scalar": np.float32(1), "image": np.zeros((5, 2))}] * 3
    assert samples(batches) == 15
    assert lengths(few(batches, 12)) == [5, 5]
    assert lengths(few(batches, 12, divisible=True)) == [5, 5, 2]


def test_parts_hold_every_sample_once_and_no_large_value(monkeypatch):
    model, inputs = made(Inverted)
    graph = capture(model, inputs[:1])
    largest = max(
        node.meta["val"].numel() // 2 for node in graph.nodes if node.op == "call_function"
    )  # traced with two samples
    monkeypatch.setattr(batches_module, "PART_BYTES", 3 * 4 * largest)
    pieces = parts(graph.module, [inputs[:10]])
    assert lengths(pieces) == [3, 3, 3, 1]
    assert torch.equal(torch.cat([piece[0] for piece in pieces]), inputs[:10])
    assert lengths(parts(graph.module, [inputs[:10]], divisible=False)) == [10]


def test_weights_do_not_count_as_values(monkeypatch):
    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(64, 8))

        def forward(self, x):
            return x @ self.weight.t()

    graph = capture(Transposed(), torch.zeros(1, 8))
    monkeypatch.setattr(batches_module, "PART_BYTES", 64 * 4)
    assert lengths(parts(graph.module, [torch.zeros(2, 8)])) == [1, 1]
    monkeypatch.setattr(batches_module, "PART_BYTES", 2 * 64 * 4)
    assert lengths(parts(graph.module, [torch.zeros(2, 8)])) == [2]


def test_ranges_are_those_of_whole_batches(monkeypatch):
    model, inputs = made(Residual)
    graph = capture(model, inputs[:1])
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    batches = [[batch] for batch in inputs.split(16)]
    whole = observe(graph.module, nodes, batches, histogram=True)
    monkeypatch.setattr(batches_module, "PART_BYTES", 1)
    divided = observe(graph.module, nodes, batches, histogram=True, divisible=True)
    for node in nodes:
        wanted, found = whole[node], divided[node]
        assert len(found.batches) == len(batches)
        torch.testing.assert_close(torch.tensor(found.batches), torch.tensor(wanted.batches))
        assert found.counts.sum() == wanted.counts.sum()
        assert np.abs(found.counts - wanted.counts).sum() <= 1e-2 * wanted.counts.sum()


@pytest.mark.parametrize("techniques", [(), ("bias_correction",)])
def test_a_model_quantized_in_parts_is_the_same(monkeypatch, techniques):
    model, inputs = made(Residual)
    options = {"techniques": techniques, "observer": "moving_average"}
    whole = quantize(model, inputs[:1], list(inputs.split(16)), **options)
    monkeypatch.setattr(batches_module, "PART_BYTES", 1)
    divided = quantize(model, inputs[:1], list(inputs.split(16)), **options)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(divided.model.state_dict()[name], value, rtol=1e-4, atol=1e-4)
    assert divided.report["output_sqnr_db"] == pytest.approx(whole.report["output_sqnr_db"], abs=0.1)
    for row, wanted in zip(divided.report["values"], whole.report["values"], strict=True):
        assert row["sqnr_db"] == pytest.approx(wanted["sqnr_db"], abs=0.1)
        assert row["clipped"] == pytest.approx(wanted["clipped"], abs=1e-3)


def test_a_model_that_fixes_its_batch_is_run_whole(monkeypatch):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 6)

        def forward(self, x):
            return self.linear(x.reshape(40, 6)).reshape(8, 5, 6)

    torch.manual_seed(0)
    monkeypatch.setattr(batches_module, "PART_BYTES", 1)
    data = torch.randn(8, 5, 6)
    quantized = quantize(Fixed().eval(), data, [data], techniques=["bias_correction"])
    assert quantized.report["output_sqnr_db"] > 20
