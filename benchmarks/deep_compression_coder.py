"""How small, and how fast to read, are models of ImageNet's size with the paper's share of weights and bits a layer?

    python benchmarks/deep_compression_coder.py                  # all models, each in a process of its own
    python benchmarks/deep_compression_coder.py --models densenet121

Weights are random (normal), pruned by magnitude to the densities of tables 4 and 5 of Deep Compression (1510.00149), and
shared with 8 bits (convolutions) and 5 (fully connected) while they are packed. VGG-16 once more with nothing pruned, 5 bits
in every layer: the most work that packing can be asked for. And DenseNet-121 with two fifths kept, 5 bits: many small tensors,
of which each costs what it costs however small it is. Printed: the time and the peak memory of
packing, the ratio beside the paper's, the bits beside the entropy, weights a second decoded, and the time to load beside
that of the float `.safetensors`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from records import records_of, trial_options

import lianzhi as lz
from lianzhi import files
from lianzhi.codebook.masks import magnitude_mask

SECONDS = 1.0  # that reading may take more than reading safetensors
MODELS: dict[str, dict[str, tuple[tuple[int, ...], float]]] = {
    "alexnet": {
        "conv1": ((96, 3, 11, 11), 0.84),
        "conv2": ((256, 48, 5, 5), 0.38),
        "conv3": ((384, 256, 3, 3), 0.35),
        "conv4": ((384, 192, 3, 3), 0.37),
        "conv5": ((256, 192, 3, 3), 0.37),
        "fc6": ((4096, 9216), 0.09),
        "fc7": ((4096, 4096), 0.09),
        "fc8": ((1000, 4096), 0.25),
    },
    "vgg16": {
        "conv1_1": ((64, 3, 3, 3), 0.58),
        "conv1_2": ((64, 64, 3, 3), 0.22),
        "conv2_1": ((128, 64, 3, 3), 0.34),
        "conv2_2": ((128, 128, 3, 3), 0.36),
        "conv3_1": ((256, 128, 3, 3), 0.53),
        "conv3_2": ((256, 256, 3, 3), 0.24),
        "conv3_3": ((256, 256, 3, 3), 0.42),
        "conv4_1": ((512, 256, 3, 3), 0.32),
        "conv4_2": ((512, 512, 3, 3), 0.27),
        "conv4_3": ((512, 512, 3, 3), 0.34),
        "conv5_1": ((512, 512, 3, 3), 0.35),
        "conv5_2": ((512, 512, 3, 3), 0.29),
        "conv5_3": ((512, 512, 3, 3), 0.36),
        "fc6": ((4096, 25088), 0.04),
        "fc7": ((4096, 4096), 0.04),
        "fc8": ((1000, 4096), 0.23),
    },
}


def densenet121() -> dict[str, tuple[tuple[int, ...], float]]:
    """The layers of Huang et al. 2017 (1608.06993), table 1, k = 32: two fifths of each kernel, all of each norm."""
    layers: dict[str, tuple[tuple[int, ...], float]] = {"conv0": ((64, 3, 7, 7), 0.4), "norm0": ((64,), 1.0)}
    width = 64
    for block, depth in enumerate((6, 12, 24, 16), 1):
        for number in range(1, depth + 1):
            name = f"block{block}.layer{number}"
            layers[f"{name}.norm1"] = ((width,), 1.0)
            layers[f"{name}.conv1"] = ((128, width, 1, 1), 0.4)
            layers[f"{name}.norm2"] = ((128,), 1.0)
            layers[f"{name}.conv2"] = ((32, 128, 3, 3), 0.4)
            width += 32
        layers[f"norm{block}"] = ((width,), 1.0)
        if block < 4:
            layers[f"transition{block}"] = ((width // 2, width, 1, 1), 0.4)
            width //= 2
    layers["classifier"] = ((1000, width), 0.4)
    return layers


MODELS["vgg16_dense"] = {layer: (shape, 1.0) for layer, (shape, _) in MODELS["vgg16"].items()}
MODELS["densenet121"] = densenet121()
BITS_OF_PAPER = {"conv*": 8, "*": 5}
BITS: dict[str, int | dict[str, int]] = {
    "alexnet": BITS_OF_PAPER,
    "vgg16": BITS_OF_PAPER,
    "vgg16_dense": 5,
    "densenet121": 5,
}
PAPER = {"alexnet": 35, "vgg16": 49}
REPEATS = 5


def state_dict(name: str) -> dict[str, torch.Tensor]:
    """Random weights, as sparse as `MODELS` says."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for layer, (shape, density) in MODELS[name].items():
        weight = torch.randn(shape, generator=generator).mul_(0.02)
        weight[~magnitude_mask(weight, 1 - density)] = 0
        state[f"{layer}.weight"] = weight
        state[f"{layer}.bias"] = torch.randn(shape[0], generator=generator).mul_(0.02)
    return state


class Watch:
    """The most memory that this process held while the block ran, from Linux's own count."""

    def __enter__(self) -> Watch:
        Path("/proc/self/clear_refs").write_text("5")
        self.before = self._status("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.peak = self._status("VmHWM")

    def _status(self, key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


def run(name: str) -> dict[str, object]:
    """Everything about one model."""
    empty = Watch()
    with empty:
        pass
    state = state_dict(name)
    weights = sum(tensor.numel() for tensor in state.values())
    floats = 4 * weights
    with tempfile.TemporaryDirectory() as place:
        file, plain = Path(place) / "model.lzc", Path(place) / "model.safetensors"
        files.write_tensors(plain, state)
        start = time.perf_counter()
        with Watch() as watch:
            report = lz.codebook.pack(state, file, bits=BITS[name], progress=True)
        packing = time.perf_counter() - start
        del state
        read, loaded = [], []
        for _ in range(REPEATS):  # in turns, for other work on the machine
            start = time.perf_counter()
            packed = lz.codebook.unpack(file)
            read.append(time.perf_counter() - start)
            del packed
            start = time.perf_counter()
            dense = files.read_tensors(plain)
            loaded.append(time.perf_counter() - start)
            del dense
    coded = [layer for layer in report.layers if layer.coded or layer.index_coded]
    return {
        "weights": weights,
        "kept": sum(layer.kept * layer.weights for layer in report.layers) / weights,
        "bytes": report.bytes,
        "ratio": report.ratio,
        "paper": PAPER.get(name),
        "overhead": report.overhead,
        "layers": {
            layer.name: [
                layer.coding,
                layer.bits,
                layer.entropy,
                layer.coded,
                layer.index_entropy,
                layer.index_coded,
            ]
            for layer in coded
        },
        "pack_seconds": packing,
        "peak_of_float": (watch.peak - empty.before) / floats,
        "weights_a_second": weights / min(read),
        "weights_a_second_median": weights / sorted(read)[REPEATS // 2],
        "load_seconds": min(read),
        "load_seconds_safetensors": min(loaded),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--one", choices=sorted(MODELS), help="this model, in this process; JSON on stdout")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), help="default: all")
    trial_options(parser, "AlexNet alone, without --models")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(run(given.one)))
        return
    records = records_of("deep_compression_coder", given)
    for name in given.models or (["alexnet"] if given.trial else MODELS):
        done = subprocess.run(
            [sys.executable, __file__, "--one", name], check=True, stdout=subprocess.PIPE, text=True
        )
        found = json.loads(done.stdout)
        records.add(name, found)
        slower = found["load_seconds"] - found["load_seconds_safetensors"]
        beside = f" (paper {found['paper']}x)" if found["paper"] else ""
        print(
            f"{name}: {found['weights'] / 1e6:.1f}M weights, {found['kept']:.1%} kept, {found['bytes']:,} bytes, "
            f"{found['ratio']:.1f}x{beside}, {found['overhead']:.1%} above the entropy\n"
            f"  packed in {found['pack_seconds']:.1f} s, peak {found['peak_of_float']:.2f}x the float model\n"
            f"  read in {found['load_seconds']:.2f} s ({found['weights_a_second'] / 1e6:.0f}M weights/s, median "
            f"{found['weights_a_second_median'] / 1e6:.0f}M), float safetensors in {found['load_seconds_safetensors']:.2f} s: "
            f"{'met' if slower <= SECONDS else 'MISSED'} ({slower:.2f} s more; {SECONDS:g})"
        )


if __name__ == "__main__":
    main()
