"""Seconds from a model to its pruned form: capture, groups, plan, surgery; on one core, at full size.

OMP_NUM_THREADS=1 python benchmarks/pruning_speed.py
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings

import torch
import torch.nn.functional as F
from records import Records
from torch import nn

import lianzhi as lz
from lianzhi.graph import capture, channel_groups
from lianzhi.prune import plan


class Dense(nn.Module):
    """DenseNet-121 (1608.06993): each layer reads all before it in its block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        self.layers, self.transitions, width = nn.ModuleList(), nn.ModuleList(), 64
        for index, count in enumerate((6, 12, 24, 16)):
            self.layers.append(nn.ModuleList(self._layer(width + 32 * place) for place in range(count)))
            width += 32 * count
            if index < 3:
                step = [
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                    nn.Conv2d(width, width // 2, 1, bias=False),
                    nn.AvgPool2d(2),
                ]
                self.transitions.append(nn.Sequential(*step))
                width //= 2
        self.norm, self.head = nn.BatchNorm2d(width), nn.Linear(width, 1000)

    @staticmethod
    def _layer(width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 128, 1, bias=False),
            nn.BatchNorm2d(128), nn.ReLU(), nn.Conv2d(128, 32, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for index, block in enumerate(self.layers):
            found = [x]
            for layer in block:  # type: ignore[attr-defined]
                found.append(layer(torch.cat(found, 1)))
            x = torch.cat(found, 1)
            if index < 3:
                x = self.transitions[index](x)
        return self.head(F.adaptive_avg_pool2d(F.relu(self.norm(x)), 1).flatten(1))


def make(name: str):
    """A model with random weights, and example inputs of its usual size."""
    image = torch.randn(1, 3, 224, 224)
    if name == "densenet121":
        return Dense(), image
    if name == "resnet50":
        return lz.model("resnet50"), image
    import transformers

    if name == "bert-base":
        ids = torch.randint(5, 30000, (1, 128))
        model = transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=2))
        return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000)), image


def measure(name: str) -> dict[str, float]:
    torch.manual_seed(0)
    model, inputs = make(name)
    model.eval()
    times = [time.perf_counter()]
    graph = capture(model, inputs)
    times.append(time.perf_counter())
    groups = channel_groups(graph)
    times.append(time.perf_counter())
    busy = time.process_time()
    decided = plan(model, inputs, ratio=0.5, scope="layer")
    times.append(time.perf_counter())
    decided.apply()
    times.append(time.perf_counter())
    busy = time.process_time() - busy
    error = decided.verify()
    steps = [round(after - before, 2) for before, after in itertools.pairwise(times)]
    return {
        "parameters": sum(p.numel() for p in model.parameters()), "groups": len(groups.groups), "capture": steps[0],
        "grouping": steps[1], "plan": steps[2], "surgery": steps[3], "total": round(steps[2] + steps[3], 2), "cpu_total": round(busy, 2), "error": error,
        "result": decided.result_kind, "threads": torch.get_num_threads(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["densenet121", "resnet50", "bert-base", "vit-b-16"])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    records = Records("pruning_speed")
    for name in options.names:
        records.add(name, measure(name))
        print(name, records[name], flush=True)


if __name__ == "__main__":
    main()
