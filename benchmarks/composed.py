"""Whole chains as recipes: what a model is before and after, in accuracy, bytes and time, over three seeds.

    python benchmarks/composed.py                                   # every recipe below; what is on record is not done again
    python benchmarks/composed.py --recipes sst2-chain --seeds 0
    python benchmarks/composed.py --recipes sst2-chain --seeds 0 --finished out/sst2-chain    # a run that is there already
    python benchmarks/composed.py --trial                           # minutes: few samples, one epoch, in a record of its own

Each is `lianzhi compress recipes/NAME.yaml --seed N`; a run that was stopped goes on. A recipe that begins with an artifact has
it trained first (`--seed 0`). What is kept is the table of the run's report: every step's accuracy on the reported split,
parameters, bytes, MACs and latencies.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from records import records_of, trial_options

from lianzhi import files

RECIPES = Path(__file__).parents[1] / "recipes"
FIRST = {  # the recipe that trains what another one begins with
    "demo": "demo-dense",
    "cifar10-resnet56": None,
    "sst2-prune": "sst2-teacher",
    "sst2-chain": "sst2-teacher",
}
KEPT = ("step", "metric", "value", "parameters", "bytes", "macs", "seconds", "runtime", "precision", "batch")
TRIAL = 128  # samples


def lianzhi(command: str, recipe: str, output: Path, seed: int, settings: list[str]) -> None:
    """Run a recipe to its end, from where it was stopped."""
    call = [sys.executable, "-m", "lianzhi", command, str(RECIPES / f"{recipe}.yaml"), "-o", str(output)]
    call += ["--seed", str(seed), *(part for text in settings for part in ("--set", text))]
    if output.exists():
        call.append("--resume")
    subprocess.run(call, check=True)


def short(recipe: str) -> list[str]:
    """Settings that let a recipe run in a minute: few samples, one epoch of each step that trains."""
    steps = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())["steps"]
    trained = [index for index, step in enumerate(steps) for options in step.values() if "epochs" in options]
    small = [f"task.limit={TRIAL}", "measure.batches=[1]", "measure.repeats=3"]
    return small + [f"steps.{index}.epochs=1" for index in trained]


def of_report(folder: Path) -> dict[str, Any]:
    """What of a run's report is kept."""
    report = files.read_json(folder / "report.json")
    rows = [
        {
            **{key: row.get(key) for key in KEPT},
            "latency_ms": row.get("latency_ms"),
            "latencies": row.get("latencies", []),
        }
        for row in report["rows"]
    ]
    return {"rows": rows, "task": report["task"]["name"], "split": report["task"]["reported"]}


def run(recipe: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Make what it begins with, then the chain."""
    settings = short(recipe) if given.trial else []
    first = FIRST[recipe]
    if first:
        start = given.first / first
        if not (start / "report.json").is_file():
            lianzhi("train", first, start, 0, short(first) if given.trial else [])
        settings.append(f"model.artifact={start}")
    folder = given.work / f"{recipe}-{seed}"
    lianzhi("compress", recipe, folder, seed, settings)
    return of_report(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", nargs="+", choices=list(FIRST), default=list(FIRST))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("out/composed"))
    parser.add_argument("--first", type=Path, help="where sst2-teacher and its like lie (default: out)")
    parser.add_argument("--finished", type=Path, help="an artifact of the one recipe and seed, made before")
    trial_options(parser, f"{TRIAL} samples, one epoch a step, one seed")
    given = parser.parse_args()
    if given.finished and (len(given.recipes) > 1 or len(given.seeds) > 1):
        parser.error("--finished is of one recipe and one seed: give --recipes and --seeds")
    if given.trial:
        given.work, given.seeds = given.work / "trial", [0]
    given.first = given.first or (given.work if given.trial else Path("out"))
    os.environ.setdefault("DATA", os.environ.get("LIANZHI_DATA", "../shared/data"))
    records = records_of("composed", given)
    for seed in given.seeds:
        for recipe in given.recipes:
            key = f"{recipe} | {seed}"
            if key not in records:
                records.add(key, of_report(given.finished) if given.finished else run(recipe, seed, given))
            first, last = records[key]["rows"][0], records[key]["rows"][-1]
            print(
                f"{key}: {first['metric']} {first['value']:.2%} -> {last['value']:.2%}, "
                f"{first['bytes'] / last['bytes']:.1f}x smaller, {first['latency_ms']:.2f} -> {last['latency_ms']:.2f} ms",
                flush=True,
            )


if __name__ == "__main__":
    main()
