"""Block reconstruction: blocks found in graphs, rounding against other choices, and use through `quantize`."""

import pytest
import torch
from nets import Feed, Inverted, Projection, Residual, made
from torch import nn

from lianzhi.graph import capture
from lianzhi.quantize import quantize
from lianzhi.quantize.placement import layer_name
from lianzhi.quantize.placement.ops import WEIGHTED
from lianzhi.quantize.ptq import brecq, choose
from lianzhi.quantize.ptq.blocks import residual_blocks


class Masked(nn.Module):
    """Two blocks of a transformer; sizes and a mask enter in the middle, and the first value is read twice."""

    def __init__(self):
        super().__init__()
        self.embedding, self.norm = nn.Embedding(20, 16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.up, self.down, self.out = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 3)

    def forward(self, tokens, mask):
        x = self.embedding(tokens)
        x = self.norm(x + self.attention(x, x, x, key_padding_mask=mask == 0, need_weights=False)[0])
        return self.out(x + self.down(torch.relu(self.up(x))))


def layers_of(block):
    return [layer_name(node) for node in block.nodes if node.target in WEIGHTED]


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (Residual, [["conv2"]]),
        (Projection, [["main", "side"]]),
        (Inverted, [["block.0", "block.3", "block.6"]]),
        (Feed, [["up", "down"]]),
        (Masked, [["attention", "attention.out_proj"], ["up", "down"]]),
    ],
)
def test_blocks_are_found(net, expected):
    if net is Masked:
        model, inputs = (
            Masked().eval(),
            (torch.ones(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.long)),
        )
    else:
        model, inputs = made(net)
        inputs = inputs[:1]
    assert [layers_of(block) for block in residual_blocks(capture(model, inputs).module)] == expected


def test_a_branch_that_leaves_is_no_block():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            y = self.a(x)
            return x + self.b(y), y

    assert residual_blocks(capture(Net().eval(), torch.randn(2, 4)).module) == []


def small_block(seed):
    """A function of two weights on correlated inputs, the weights, and their scales."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(128, 2, generator=generator) @ torch.randn(2, 6, generator=generator)
    inputs = inputs + 0.1 * torch.randn(inputs.shape, generator=generator)
    weights = [torch.randn(8, 6, generator=generator), torch.randn(4, 8, generator=generator)]
    scales = [weight.abs().amax(1, keepdim=True) / 7 for weight in weights]
    return lambda pair, _=0: torch.relu(inputs @ pair[0].T) @ pair[1].T, weights, scales


def test_a_small_block_is_rounded_better_than_at_random_and_to_the_nearest():
    shares = []
    for seed in range(3):
        output, weights, scales = small_block(seed)
        exact = output(weights)

        def error(pair, output=output, exact=exact):
            return float((output(pair) - exact).square().mean())

        found = brecq(output, [exact], weights, scales, -7, 7)
        for weight, rounded, scale in zip(weights, found, scales, strict=True):
            assert ((rounded - weight) / scale).abs().max() < 1  # up or down, no further
            torch.testing.assert_close(rounded / scale, (rounded / scale).round(), rtol=0, atol=1e-4)
        pairs = list(zip(weights, scales, strict=True))
        nearest = error([(weight / scale).round() * scale for weight, scale in pairs])
        at_random = [
            error(
                [(weight / scale + torch.rand(weight.shape) - 0.5).round() * scale for weight, scale in pairs]
            )
            for _ in range(200)
        ]
        assert error(found) < sorted(at_random)[5]
        shares.append(error(found) / nearest)
    assert sum(shares) / len(shares) < 0.6


@pytest.mark.parametrize("activations", ["int8", "float"])
def test_blocks_in_context_beat_rounding_to_the_nearest(activations):
    model, inputs = made(Projection)
    flat = inputs.flatten(1)
    inputs = (flat[:, :6] @ torch.randn(6, flat.shape[1])).reshape(inputs.shape) / 6**0.5
    options = {"weights": "int4", "activations": activations, "reduce_range": False}
    with torch.no_grad():
        exact = model(inputs)
        quantized = [
            quantize(model, inputs[:1], list(inputs.split(32)), techniques=names, **options)
            for names in ((), [{"brecq": {"steps": 100}}])
        ]
        plain, better = ((item.model(inputs) - exact).square().mean() for item in quantized)
    assert better < (0.3 if activations == "float" else 0.6) * plain
    assert quantized[1].report["techniques"] == [
        {**choose([{"brecq": {"steps": 100}}])[0].to_dict(), "skipped": []}
    ]


def test_sizes_and_masks_enter_a_block():
    torch.manual_seed(0)
    model = Masked().eval()
    tokens, mask = torch.randint(0, 20, (32, 6)), (torch.rand(32, 6) > 0.2).long()
    mask[:, 0] = 1
    batches = [(tokens[:20], mask[:20]), (tokens[20:], mask[20:])]
    with torch.no_grad():
        exact = model(tokens, mask)
        plain, better = (
            quantize(
                model,
                (tokens[:2], mask[:2]),
                batches,
                weights="int4",
                activations="float",
                techniques=names,
                ignore=["embedding"],  # no block has a part in the rounding of its table
            ).model(tokens, mask)
            for names in ((), [{"brecq": {"steps": 200}}])
        )
    assert (better - exact).square().mean() < 0.8 * (plain - exact).square().mean()
