"""Several runs beside each other: what of them can be compared, and in what they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lianzhi.report import compare, format
from lianzhi.report.data import Report
from lianzhi.report.words import WORDS

Remark = tuple[str, dict[str, str]]  # a key of the page's words, and the values in it


@dataclass(frozen=True)
class Run:
    """A report under the name that tells it from the others."""

    name: str
    report: Report


@dataclass(frozen=True)
class Differences:
    """Settings that are not the same in all runs, a value a run (None where it has none), and those that are."""

    differing: list[tuple[str, list[str | None]]]
    shared: dict[str, str]


def question(run: Run) -> str:
    """What a run's metric answers; only the same questions have answers to compare.

    >>> question(Run("a", Report.from_json({"rows": [{"step": "original", "split": "test"}], "task": {"name": "mnist"}})))
    'top-1 on mnist test'
    """
    split, samples = compare.evaluated_on(run.report)
    metric = format.metric_name(run.report.rows[0]["metric"])
    place = " ".join(part for part in (compare.task_name(run.report), split) if part)
    text = f"{metric} on {place}" if place else metric
    return f"{text} ({samples:,} samples)" if samples else text


def conditions(run: Run) -> str | None:
    """Where and how the latency of what ships was measured: machine, threads, batch; None if it was not."""
    shipped = compare.deployed(compare.final(run.report))
    if shipped is None:
        return None
    cpu, threads = run.report.environment.get("cpu"), shipped["threads"]
    parts = [cpu if isinstance(cpu, str) and cpu else None]
    parts += [f"{threads} thread{'' if threads == 1 else 's'}" if threads else None]
    return ", ".join([*(part for part in parts if part), f"batch {shipped['batch'] or 1}"])


def grouped(runs: Sequence[Run], by: Callable[[Run], str | None]) -> dict[str, list[Run]]:
    """The runs by what they have in common, in their order; those that have nothing of the kind are left out."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if (key := by(run)) is not None:
            groups.setdefault(key, []).append(run)
    return groups


def remarks(runs: Sequence[Run]) -> list[Remark]:
    """What stands in the way of comparing: different tasks or metrics, latencies that were not measured alike."""
    found: list[Remark] = []
    for key, by in (("other_questions", question), ("other_conditions", conditions)):
        groups = grouped(runs, by)
        if len(groups) > 1:
            said = "; ".join(
                f"{', '.join(run.name for run in group)}: {name}" for name, group in groups.items()
            )
            found.append((key, {"groups": said}))
    return found


def remark_lines(runs: Sequence[Run]) -> list[str]:
    """The remarks in English, for a terminal."""
    return [format.clean(WORDS[key][0].format(**values)) for key, values in remarks(runs)]


def settings(recipe: Mapping[str, Any]) -> dict[str, str]:
    """A recipe's settings by name: those of a step by the step's, with a number where it comes more than once.

    >>> steps = [{"prune": {"ratio": 0.5}}, {"train": {"epochs": 1}}, {"prune": {"ratio": 0.2, "round_to": None}}]
    >>> settings({"seed": 0, "steps": steps})
    {'steps': 'prune → train → prune', 'seed': '0', 'prune.ratio': '0.5', 'train.epochs': '1', 'prune 2.ratio': '0.2'}
    """
    steps = recipe.get("steps")
    steps = [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
    named = [(str(name), options) for step in steps for name, options in step.items()]
    seen: Counter[str] = Counter()
    values: dict[str, Any] = {"steps": " → ".join(name for name, _ in named)} if named else {}
    values |= {key: value for key, value in recipe.items() if key not in ("steps", "versions")}
    for name, options in named:
        seen[name] += 1
        values[f"{name} {seen[name]}" if seen[name] > 1 else name] = options
    return facts(values)


def facts(values: Mapping[str, Any]) -> dict[str, str]:
    """Nested values by dotted names, as text."""
    written = {True: "true", False: "false"}
    return {
        key: written[value] if isinstance(value, bool) else format.clean(value)
        for key, value in compare.flat(dict(values))
    }


def differences(runs: Sequence[Mapping[str, str]]) -> Differences:
    """What is not the same in all runs; what belongs to a step is compared among the runs that have the step.

    >>> found = differences([{"seed": "0", "prune.ratio": "0.5"}, {"seed": "0", "prune.ratio": "0.7"}, {"seed": "0"}])
    >>> found.differing, found.shared
    ([('prune.ratio', ['0.5', '0.7', None])], {'seed': '0'})
    """
    owners = [{key.partition(".")[0] for key in run} for run in runs]
    differing, shared = [], {}
    for key in dict.fromkeys(key for run in runs for key in run):
        owner = key.partition(".")[0]
        values = {
            run.get(key) for run, owned in zip(runs, owners, strict=True) if owner in owned or owner == key
        }
        if len(values) > 1:
            differing.append((key, [run.get(key) for run in runs]))
        else:
            shared[key] = next(run[key] for run in runs if key in run)
    return Differences(differing, shared)
