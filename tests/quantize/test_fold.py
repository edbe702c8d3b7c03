"""BatchNorm folding is exact, and what cannot be folded is said."""

import copy

import pytest
import torch
from nets import NETS, made
from torch import nn

from lianzhi.graph import capture
from lianzhi.quantize.fold import fold_batch_norm

aten = torch.ops.aten


def folded(model, inputs):
    module = copy.deepcopy(capture(model, inputs).module)
    names, left = fold_batch_norm(module)
    return module, names, left


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.__name__)
def test_the_output_is_the_same_and_no_batch_norm_is_left(net):
    model, inputs = made(net)
    before = copy.deepcopy(model.state_dict())
    module, names, left = folded(model, inputs)
    assert left == []
    assert len(names) == sum(isinstance(item, (nn.BatchNorm1d, nn.BatchNorm2d)) for item in model.modules())
    assert all(node.target is not aten.batch_norm.default for node in module.graph.nodes)
    with torch.no_grad():
        torch.testing.assert_close(module(inputs), model(inputs), rtol=1e-4, atol=1e-5)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_by_hand():
    conv, norm = nn.Conv2d(1, 1, 1, bias=True), nn.BatchNorm2d(1, eps=0.0)
    with torch.no_grad():
        conv.weight.fill_(3.0)
        conv.bias.fill_(1.0)
        norm.weight.fill_(2.0)
        norm.bias.fill_(0.5)
        norm.running_mean.fill_(7.0)
        norm.running_var.fill_(4.0)
    module, names, _ = folded(nn.Sequential(conv, norm).eval(), torch.zeros(1, 1, 2, 2))
    state = module.state_dict()
    assert names == ["1"]
    assert state["0.weight"].item() == pytest.approx(3 * 2 / 2)
    assert state["0.bias"].item() == pytest.approx((1 - 7) * 2 / 2 + 0.5)
    assert set(state) == {"0.weight", "0.bias"}


def test_without_scale_and_shift_and_transposed():
    for model in (
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, affine=False)),
        nn.Sequential(nn.ConvTranspose2d(2, 4, 3), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(2, 4, 3, padding="same", groups=2), nn.BatchNorm2d(4)),
    ):
        inputs = torch.randn(4, 2, 6, 6)
        model.train()(inputs)
        model.eval()
        module, names, _ = folded(model, inputs)
        assert names == ["1"]
        with torch.no_grad():
            torch.testing.assert_close(module(inputs), model(inputs), rtol=1e-4, atol=1e-5)


def test_reasons_for_what_is_left():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.conv, self.norm = nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

        def forward(self, x):
            x = self.conv(self.first(x))
            return self.norm(x) + x

    model = Shared().eval()
    inputs = torch.randn(2, 2, 4, 4)
    module, names, left = folded(model, inputs)
    assert names == []
    assert dict(left) == {
        "first": "no convolution or linear layer stands directly before it",
        "norm": "the layer before it is also used elsewhere",
    }
    twice = nn.Conv2d(2, 2, 1)
    model = nn.Sequential(twice, nn.BatchNorm2d(2), twice, nn.BatchNorm2d(2)).eval()
    module, names, left = folded(model, inputs)
    assert names == []
    assert {reason for _, reason in left} == {"the layer before it is used more than once"}
    with torch.no_grad():
        torch.testing.assert_close(module(inputs), model(inputs))


def test_linear_over_tokens_is_not_folded():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

        def forward(self, x):
            return self.norm(self.linear(x))

    _, names, left = folded(Tokens().eval(), torch.randn(2, 4, 4))
    assert names == []
    assert "not the outputs of the linear layer" in left[0][1]
