"""Which single weights go while a model trains: the smallest, or those that cost least? ResNet-20 on CIFAR-10.

    python benchmarks/pruning_weights.py            # three seeds; a run that is on record is not done again

The published weights are pruned to a fifth, a tenth and a twentieth along a cubic, by one threshold for all layers, over the first 70 %
of two epochs of training on the labels; the dense model trains for as long, with the same options. A seed gives the order of
the images and their augmentation, the same for every run. A run that was stopped goes on where it was.

Top-1 is of the test split, which nothing is chosen by.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

from records import Records, records_of, spread, trial_options

import lianzhi as lz

EPOCHS = 2
KEPT = (0.2, 0.1, 0.05)
CRITERIA = ("l1", "hessian")
TRAINING: dict[str, Any] = {"lr": 0.02, "batch_size": 128, "weight_decay": 5e-4, "precision": "auto"}
DENSE = "dense"
TRIAL = 512


def steps_of(criterion: str, kept: float, epochs: float) -> list[Any]:
    """The recipe of a run."""
    training = lz.Train(epochs=epochs, keep="last", **TRAINING)
    if criterion == DENSE:
        return [training]
    options: dict[str, Any] = {"ratio": 1 - kept, "gradual": 0.7, "every": 20}
    return [lz.Prune(granularity="weight", criterion=criterion, refine=training, **options)]


def run(
    criterion: str, kept: float, seed: int, task: lz.Task, given: argparse.Namespace, epochs: float
) -> dict[str, Any]:
    """Prune and train, from where a stopped run was."""
    folder = given.work / f"{criterion}-{kept:g}-{seed}"
    result = lz.compress(
        lz.model("resnet20", weights=given.data / "cifar10" / "resnet20.safetensors"),
        task,
        steps_of(criterion, kept, epochs),
        output=folder,
        target="pytorch",
        seed=seed,
        resume=folder.exists(),
        measure=lz.Measure(batches=(1,), repeats=1),
    )
    return {"top1": result.report.rows[-1]["value"]}


def tops(records: Records, criterion: str, kept: float) -> list[float]:
    """Top-1 of a cell's runs."""
    return [record["top1"] for key, record in records.items() if key.startswith(f"{criterion} | {kept:g} | ")]


def table(records: Records) -> str:
    """A row a share, a column a criterion; mean ± deviation over the seeds on record."""
    lines = ["| kept | " + " | ".join(CRITERIA) + " | difference |", "|---" * (len(CRITERIA) + 2) + "|"]
    lines.append(f"| all | {spread(tops(records, DENSE, 1))} | | |")
    for kept in KEPT:
        found = [tops(records, criterion, kept) for criterion in CRITERIA]
        if all(found):
            gain = 100 * (statistics.mean(found[1]) - statistics.mean(found[0]))
            lines.append(
                f"| {kept:.0%} | " + " | ".join(spread(cell) for cell in found) + f" | {gain:+.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LIANZHI_DATA", "../shared/data")))
    parser.add_argument("--work", type=Path, default=Path("out/pruning_weights"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    trial_options(parser, f"{TRIAL} images, one seed and one epoch")
    given = parser.parse_args()
    if given.trial:
        given.work, given.seeds = given.work / "trial", [0]
    task = lz.task("cifar10", data=given.data / "cifar10", limit=TRIAL if given.trial else None)
    records = records_of("pruning_weights", given)
    for seed in given.seeds:
        cells = [(DENSE, 1.0), *((criterion, kept) for kept in KEPT for criterion in CRITERIA)]
        for criterion, kept in cells:
            key = f"{criterion} | {kept:g} | {seed}"
            if key not in records:
                records.add(key, run(criterion, kept, seed, task, given, 1 if given.trial else EPOCHS))
    print(table(records))


if __name__ == "__main__":
    main()
