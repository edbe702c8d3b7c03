"""What three parts of a training step take on this processor, by the library's way and by the plain one.

    OMP_NUM_THREADS=1 python benchmarks/training_steps.py

3x3 convolutions in bf16, forward and backward, by `conv2d` and as one product of matrices (which training chooses over small maps on
a processor with AMX); zeroing the removed half of four million weights by `masked_fill_` and by their bits; an update of SGD whose
momentum is denormal, as that of removed weights becomes, and one after `forget_small`. The best of some runs, in milliseconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lianzhi.codebook.zeroing import bits_of, zero_
from lianzhi.train.optimizers import forget_small
from lianzhi.train.small_maps import as_product

RUNS = 15
IMAGES = 128
WEIGHTS = 4_000_000
LAYERS = ((512, 512, 2), (512, 512, 4), (256, 512, 4), (256, 256, 8))  # channels in, out, side of the map
DENORMAL = 1e-42


def best(run: Callable[[], object]) -> float:
    """Milliseconds of the quickest run."""
    run()
    taken = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begin)
    return 1e3 * min(taken)


def convolution(channels: int, outputs: int, side: int) -> tuple[str, float, float]:
    """Forward and backward of a layer, by the convolution and by the product."""
    layer = nn.Conv2d(channels, outputs, 3, padding=1).to(memory_format=torch.channels_last)
    maps = torch.randn(IMAGES, channels, side, side, dtype=torch.bfloat16)
    maps = maps.to(memory_format=torch.channels_last).requires_grad_()

    def run(compute: Callable[[Tensor], Tensor]) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = compute(maps)
        torch.autograd.grad(found, [maps, *layer.parameters()], torch.ones_like(found))

    plain = best(lambda: run(layer))
    ours = best(lambda: run(lambda maps: as_product(maps, layer.weight, layer.bias)))
    return f"{channels} to {outputs} channels, {side}x{side}", plain, ours


def zeroing() -> tuple[str, float, float]:
    """A mask in place."""
    weights = torch.randn(WEIGHTS)
    keep = torch.rand(WEIGHTS) < 0.5
    gone, bits = ~keep, bits_of(keep, weights)
    plain = best(lambda: weights.masked_fill_(gone, 0.0))
    return f"a mask of {WEIGHTS:,} weights", plain, best(lambda: zero_(weights, bits))


def updates() -> tuple[str, float, float]:
    """Updates with a momentum that no gradient feeds."""
    weights = nn.Parameter(torch.randn(WEIGHTS))
    weights.grad = torch.zeros(WEIGHTS)
    optimizer = torch.optim.SGD([weights], lr=0.01, momentum=0.9, fused=True)
    optimizer.step()
    optimizer.state[weights]["momentum_buffer"].fill_(DENORMAL)
    plain = best(optimizer.step)
    forget_small(optimizer)
    return f"an update of {WEIGHTS:,} weights by SGD", plain, best(optimizer.step)


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print("| | plain, ms | here, ms | quicker |\n|---|--:|--:|--:|")
    for name, plain, ours in [*(convolution(*layer) for layer in LAYERS), zeroing(), updates()]:
        print(f"| {name} | {plain:.2f} | {ours:.2f} | {plain / ours:.1f}x |", flush=True)


if __name__ == "__main__":
    main()
