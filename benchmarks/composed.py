"""Whole chains as recipes: what a model is before and after, in accuracy, bytes and time; the front and the goals of each model.

    python benchmarks/composed.py                                   # every recipe; what is on record is not done again
    python benchmarks/composed.py --recipes sst2-chain --seeds 0
    python benchmarks/composed.py --recipes sst2-chain --seeds 0 --finished out/sst2-chain    # a run that is there already
    python benchmarks/composed.py --time                            # what is on record timed again, the best of three passes, on an idle machine
    python benchmarks/composed.py --fronts                          # print, and run nothing
    python benchmarks/composed.py --trial                           # minutes: few samples, one epoch, in a record of its own

Each is `lianzhi compress recipes/NAME.yaml --seed N`; a run that was stopped goes on. What a recipe begins with or learns from
is made first: `out/NAME` in a recipe is what `recipes/NAME.yaml` makes. One that only trains lies in `--first` and has seed 0,
any other in `--work`, with the seed of the run. What is kept is the table of the report, of a chain of recipes from the dense
model on: every step's accuracy, parameters, bytes and MACs. The original and the result are timed in one call, at batch 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from records import Records, records_of, trial_options
from timing import Ends, best, timed
from zoo import fronts
from zoo.goals import FAMILIES

from lianzhi import files

RECIPES = Path(__file__).parents[1] / "recipes"
NAMES = tuple(name for family in FAMILIES for name in family.recipes)
KEPT = ("step", "metric", "value", "validation", "parameters", "bytes", "macs", "seconds")
TIMED = ("runtime", "precision", "batch", "latency_ms", "latencies")
TRIAL = 128  # samples
PASSES = 3


def read(recipe: str) -> dict[str, Any]:
    """A recipe as it is written."""
    found: dict[str, Any] = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())
    return found


def places(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every value of a recipe with its key as `--set` writes it.

    >>> list(places({"steps": [{"prune": {"refine": {"distill": {"epochs": 3}}}}]}))
    [('steps.0.prune.refine.distill.epochs', 3)]
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, str(key)))
    elif isinstance(value, list) and path == ("steps",):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, str(index)))
    else:
        yield ".".join(path), value


def needs(recipe: str) -> dict[str, str]:
    """The keys of a recipe that name what another one makes, and that one's name."""
    found = {}
    for key, value in places(read(recipe)):
        folder, _, name = str(value).partition("/")
        if folder == "out" and (RECIPES / f"{name}.yaml").is_file():
            found[key] = name
    return found


def only_trains(recipe: str) -> bool:
    """Whether it makes a dense model."""
    return all(list(step) == ["train"] for step in read(recipe)["steps"])


def short(recipe: str) -> list[str]:
    """Settings that let a recipe run in a minute: few samples, one epoch of each training."""
    small = [f"task.limit={TRIAL}", "measure.batches=[1]", "measure.repeats=3"]
    return small + [f"{key}=1" for key, _ in places(read(recipe)) if key.endswith(".epochs")]


def folder_of(recipe: str, seed: int, given: argparse.Namespace) -> Path:
    """Where what a recipe makes lies."""
    place = given.first / recipe if only_trains(recipe) else given.work / f"{recipe}-{seed}"
    return Path(place)


def make(recipe: str, seed: int, given: argparse.Namespace) -> Path:
    """Run a recipe to its end, from where it was stopped, and first all that it needs."""
    folder = folder_of(recipe, seed, given)
    if (folder / "report.json").is_file():
        return folder
    settings = short(recipe) if given.trial else []
    for key, name in needs(recipe).items():
        settings.append(f"{key}={make(name, seed, given)}")
    command, drawn = ("train", 0) if only_trains(recipe) else ("compress", seed)
    call = [sys.executable, "-m", "lianzhi", command, str(RECIPES / f"{recipe}.yaml"), "-o", str(folder)]
    call += ["--seed", str(drawn), *(part for text in settings for part in ("--set", text))]
    if folder.exists():
        call.append("--resume")
    subprocess.run(call, check=True)
    return folder


def chain_of(recipe: str) -> list[str]:
    """The recipes from the dense model on, the last one being this one; what only trains is left out."""
    before = needs(recipe).get("model.artifact")
    return [*(chain_of(before) if before and not only_trains(before) else []), recipe]


def dense_of(recipe: str) -> str | None:
    """The recipe that trains what the chain begins with; None where the first of them begins with a model of the zoo."""
    return needs(chain_of(recipe)[0]).get("model.artifact")


def of_reports(folders: Sequence[Path], dense: str | None) -> dict[str, Any]:
    """What of a chain's reports is kept: the rows of the first one, and of the others all but what they begin with."""
    reports = [files.read_json(folder / "report.json") for folder in folders]
    rows = [row for index, report in enumerate(reports) for row in report["rows"][min(index, 1) :]]
    ends = (0, len(rows) - 1)
    kept = [
        {key: row.get(key) for key in (*KEPT, *(TIMED if index in ends else ()))}
        for index, row in enumerate(rows)
    ]
    task = reports[-1]["task"]
    return {"rows": kept, "task": task["name"], "split": task["reported"], "dense": dense}


def run(recipe: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Make the chain, and time its two ends."""
    folder = given.finished or make(recipe, seed, given)
    before = [make(name, seed, given) for name in chain_of(recipe)[:-1]]
    return time_ends(of_reports([*before, folder], dense_of(recipe)), recipe, folder, given)


def time_ends(record: dict[str, Any], recipe: str, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """The record with the original and the result timed one after the other."""
    return with_times(record, ends(record, recipe, folder, given))


def ends(record: dict[str, Any], recipe: str, folder: Path, given: argparse.Namespace) -> Ends:
    """What the first and the last row say of times, taken now."""
    dense, start = dense_of(recipe), chain_of(recipe)[0]
    settings = [f"model.artifact={given.first / dense}"] if dense else []
    repeats = 3 if given.trial else 200
    return timed(RECIPES / f"{start}.yaml", settings, folder, record["rows"][-1], repeats=repeats)


def with_times(record: dict[str, Any], found: Ends) -> dict[str, Any]:
    """The record with these times."""
    first, *between, last = record["rows"]
    original, result = ({**row, **one} for row, one in zip((first, last), found, strict=True))
    return {**record, "rows": [original, *between, result]}


def time_again(records: Records, given: argparse.Namespace) -> None:
    """Time every run whose folder is there, in place of what was timed before.

    The runs take turns, and of each the best pass is kept: two threads can be of two speeds for minutes on a machine
    whose cores are shared with others.
    """
    folders = {}
    for key, _ in records.items():
        recipe, _, seed = key.partition(" | ")
        if recipe not in given.recipes or int(seed) not in given.seeds:
            continue
        folder = given.finished or folder_of(recipe, int(seed), given)
        dense = dense_of(recipe)
        needed = (folder, *([given.first / dense] if dense else []))
        missing = next((place for place in needed if not place.is_dir()), None)
        if missing:
            print(f"{key}: {missing} is not there; it keeps its times")
        else:
            folders[key] = recipe, folder
    found: dict[str, Ends] = {}
    for _ in range(1 if given.trial else PASSES):
        for key, (recipe, folder) in folders.items():
            now = ends(records[key], recipe, folder, given)
            found[key] = best(found[key], now) if key in found else now
    for key, times in found.items():
        records.time(key, with_times(records[key], times))
        print(line(key, records[key]), flush=True)


def line(key: str, record: dict[str, Any]) -> str:
    """A run in a line."""
    first, last = record["rows"][0], record["rows"][-1]
    return (
        f"{key}: {first['metric']} {first['value']:.2%} -> {last['value']:.2%}, "
        f"{first['bytes'] / last['bytes']:.1f}x smaller, {first['latency_ms']:.2f} -> {last['latency_ms']:.2f} ms"
    )


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("out/composed"))
    parser.add_argument("--first", type=Path, help="where sst2-teacher and its like lie (default: out)")
    parser.add_argument("--finished", type=Path, help="an artifact of the one recipe and seed, made before")
    parser.add_argument("--time", action="store_true", help="time again what is on record, and train nothing")
    parser.add_argument("--fronts", action="store_true", help="print what is on record, and run nothing")
    trial_options(parser, f"{TRIAL} samples, one epoch a step, one seed")
    given = parser.parse_args()
    if given.finished and (len(given.recipes) > 1 or len(given.seeds) > 1):
        parser.error("--finished is of one recipe and one seed: give --recipes and --seeds")
    if given.trial:
        given.work, given.seeds = given.work / "trial", [0]
    given.first = given.first or (given.work if given.trial else Path("out"))
    return given


def main() -> None:
    given = options()
    os.environ.setdefault("DATA", os.environ.get("LIANZHI_DATA", "../shared/data"))
    records = records_of("composed", given)
    if given.time:
        time_again(records, given)
    for seed in () if given.time or given.fronts else given.seeds:
        for recipe in given.recipes:
            key = f"{recipe} | {seed}"
            if key not in records:
                records.add(key, run(recipe, seed, given))
            print(line(key, records[key]), flush=True)
    print(fronts.printed(records.items()))


if __name__ == "__main__":
    main()
