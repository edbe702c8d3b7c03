"""What the report shows of each layer's weights after a step of Deep Compression: bytes as they would be packed, and values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi import codebook
from lianzhi.codebook import PackReport
from lianzhi.codebook.masks import weights_of
from lianzhi.pipeline.state import Run

Details = dict[str, Any]
BINS = 64
INTEGERS = re.compile(r"_int\d+$")  # behind the name of a weight whose integers are stored
SHOWN = 255  # values of a layer that are drawn


def stage(run: Run, model: nn.Module, folder: Path) -> Details:
    """The model's weights as they would be in a packed file now, layer by layer."""
    if not run.leads:
        return {}
    file = folder / "stage.lzc"
    try:
        return {"stage": rows(codebook.pack(model.state_dict(), file), set(weights_of(model)))}
    finally:
        file.unlink(missing_ok=True)


def rows(report: PackReport, names: set[str] | None = None) -> Details:
    """The rows of a packed file: those of some names, or of all that have two or more dimensions."""
    return {
        "bytes": report.bytes,
        "ratio": report.ratio,
        "layers": [
            {
                "name": INTEGERS.sub("", layer.name),
                "weights": layer.weights,
                "kept": layer.kept,
                "bits": layer.bits,
                "index_bits": layer.index_bits,
                "entropy": layer.entropy,
                "coded": layer.coded,
                "index_entropy": layer.index_entropy,
                "index_coded": layer.index_coded,
                "bytes_shared": layer.bytes_shared,
                "bytes": layer.bytes,
                "coding": layer.coding,
            }
            for layer in report.layers
            if (layer.name in names if names is not None else layer.weights > math.prod(layer.shape[:1]))
        ],
    }


def distributions(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[Details]:
    """For each layer a histogram of what was not zero before, and the values that it shares now, with how many have each.

    >>> found = distributions({"a": torch.tensor([[0.0, 1.0, 3.0]])}, {"a": torch.tensor([[0.0, 1.0, 2.0]])})
    >>> found[0]["low"], found[0]["high"], sum(found[0]["counts"]), found[0]["values"]
    (1.0, 3.0, 2, [[1.0, 1], [2.0, 1]])
    """
    found = []
    for name, shared in after.items():
        weight = before[name].detach().flatten().float()
        weight = weight[weight != 0]
        values, counts = shared.detach()[shared.detach() != 0].unique(return_counts=True)
        if not len(weight) or len(values) > SHOWN:
            continue
        low, high = float(weight.min()), float(weight.max())
        bins = torch.histc(weight, BINS, low, high) if high > low else torch.tensor([float(len(weight))])
        pairs = [[float(value), int(count)] for value, count in zip(values, counts, strict=True)]
        found.append(
            {"name": name, "low": low, "high": high, "counts": [int(n) for n in bins], "values": pairs}
        )
    return found
