"""Which criteria know more than chance: ResNet-20 on CIFAR-10, a fifth of each block's inner channels removed.

    python benchmarks/pruning_criteria.py           # a run that is on record is not done again

Every criterion prunes the same layers by the same number (scope `layer`; the residual stream is left alone), on
the published weights. BatchNorm statistics are re-estimated on 5,000 training images; nothing is trained. Those
that read data get 512 images of the calibration cut. Ten random draws are the baseline: a criterion counts as
better than chance where its top-1 is above their mean + standard deviation.

Top-1 is of the test split, which nothing is chosen by.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from records import Records, records_of, trial_options

import lianzhi as lz
from lianzhi import deploy
from lianzhi.errors import GraphError
from lianzhi.measure import both_in_turns
from lianzhi.prune.latency import repeated

IMAGE = torch.zeros(1, 3, 32, 32)
STREAM = ("conv1", "layer2.0.conv2", "layer3.0.conv2")
RATIO, DRAWS, CALIBRATION, TRAINING = 0.2, 10, 512, 5_000
BATCH, ROUNDS = 64, 15
TRIAL = 256  # images a split; two draws


def taken(task: lz.Task, split: str, count: int, *, epoch: int | None = None) -> list[Any]:
    """The first `count` samples of a split (of its shuffle, with `epoch`), in batches of at most 250."""
    size = min(count, 250)
    batches = task.batches(split, size, epoch=epoch)
    return list(itertools.islice(batches, -(-count // size)))


def needed(name: str, task: lz.Task) -> dict[str, Any]:
    """The data that a criterion reads, as arguments of `plan`."""
    what = lz.prune.criteria.needed_by(lz.prune.registry.get(name).build)
    if what is None:
        return {}
    batches = taken(task, "calibration", CALIBRATION)
    if what == "activations":
        return {"calibration": [batch.inputs for batch in batches]}
    return {"calibration": [(batch.inputs, batch.labels) for batch in batches], "loss": task.loss}


def run(
    name: str, options: dict[str, Any], weights: Path, task: lz.Task, training: list[Any]
) -> dict[str, Any]:
    """Prune by one criterion, re-estimate, evaluate."""
    model = lz.model("resnet20", weights=weights)
    start = time.perf_counter()
    try:
        plan = lz.prune.plan(
            model,
            IMAGE,
            ratio=RATIO,
            scope="layer",
            ignore=STREAM,
            criterion=name,
            criterion_options=options,
            **needed(name, task),
        )
    except GraphError as error:
        return {"top1": None, "why": str(error)}
    seconds = time.perf_counter() - start
    exact = plan.verify()
    if exact > 1e-5:
        raise SystemExit(f"{name}: the surgery is not exact ({exact})")
    small = plan.apply()
    lz.prune.reestimate(small, training)
    return {
        "top1": lz.measure.evaluate(small, task, split="test").value,
        "macs": plan.count("macs") / plan.count("macs", {}),
        "difference": exact,
        "seconds": seconds,
    }


def timed(weights: Path) -> dict[str, Any]:
    """Milliseconds of a batch in ONNX Runtime, dense and pruned, in turns; the widths are the same for all criteria."""
    model = lz.model("resnet20", weights=weights).eval()
    small = lz.prune.plan(model, IMAGE, ratio=RATIO, scope="layer", ignore=STREAM, criterion="l1").apply()
    inputs = repeated(IMAGE, BATCH)
    with tempfile.TemporaryDirectory() as name:
        files = [
            deploy.export_onnx(module.eval(), IMAGE, Path(name) / f"{index}.onnx")
            for index, module in enumerate((model, small))
        ]
        dense, pruned = (deploy.load(file, runtime="onnxruntime", precision="f32") for file in files)
        turns = both_in_turns(partial(dense, inputs), partial(pruned, inputs), ROUNDS)
    return {"original_ms": turns.original_ms, "pruned_ms": turns.trial_ms, "batch": BATCH}


def table(records: Records) -> str:
    """Every criterion, best first, beside the random draws."""
    draws = [record["top1"] for key, record in records.items() if key.startswith("random ")]
    mean, deviation = statistics.mean(draws), statistics.stdev(draws)
    found = {key: record for key, record in records.items() if not key.startswith(("random ", "speed"))}
    ranked = sorted(
        (key for key in found if found[key]["top1"] is not None), key=lambda key: -found[key]["top1"]
    )
    lines = ["| criterion | top-1 | above chance |", "|---|---|---|"]
    for key in ranked:
        top = found[key]["top1"]
        verdict = "" if key == "dense" else "yes" if top > mean + deviation else "no"
        lines.append(f"| `{key}` | {top:.2%} | {verdict} |")
    lines.append(f"| `random`, {len(draws)} draws | {mean:.2%} ± {100 * deviation:.2f} | |")
    lines += [f"| `{key}` | does not apply | |" for key in found if found[key]["top1"] is None]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LIANZHI_DATA", "../shared/data")))
    parser.add_argument("--speed", action="store_true", help="time the widths as well (a quiet machine)")
    trial_options(parser, f"{TRIAL} images, two random draws")
    given = parser.parse_args()
    task = lz.task("cifar10", data=given.data / "cifar10", limit=TRIAL if given.trial else None)
    weights = given.data / "cifar10" / "resnet20.safetensors"
    records = records_of("pruning_criteria", given)
    wanted = {name: (name, {}) for name in lz.prune.registry.names() if name != "random"}
    wanted |= {f"random {seed}": ("random", {"seed": seed}) for seed in range(2 if given.trial else DRAWS)}
    training = [batch.inputs for batch in taken(task, "train", TRAINING, epoch=0)]
    if "dense" not in records:
        dense = lz.model("resnet20", weights=weights)
        lz.prune.reestimate(dense, training)
        records.add("dense", {"top1": lz.measure.evaluate(dense, task, split="test").value})
    for key, (name, options) in wanted.items():
        if key not in records:
            records.add(key, run(name, options, weights, task, training))
            print(key, records[key], file=sys.stderr)
    if given.speed and "speed" not in records:
        records.add("speed", timed(weights))
    print(table(records))


if __name__ == "__main__":
    main()
