"""Chains of recipes: what each needs first, what of their reports is one table, who holds to the rule of a goal, and times."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import lianzhi as lz
from lianzhi import artifact, deploy
from lianzhi import recipe as recipes

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def composed() -> Iterator[ModuleType]:
    """The script, as it sees its own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("composed")


@pytest.fixture(scope="module")
def goals(composed) -> ModuleType:
    return sys.modules["zoo.goals"]


def row(step: str, value: float, size: int, ms: float | None = None) -> dict[str, Any]:
    """A row of a report; with a time it is one of a chain's ends."""
    made: dict[str, Any] = {
        "step": step,
        "metric": "top1",
        "value": value,
        "validation": value,
        "bytes": size,
    }
    if ms is not None:
        entry = {
            "runtime": "onnxruntime",
            "precision": "f32",
            "batch": 1,
            "threads": 1,
            "median_ms": ms,
            "p90_ms": ms,
        }
        made |= {
            "latencies": [entry],
            "latency_ms": ms,
            "runtime": "onnxruntime",
            "precision": "f32",
            "batch": 1,
        }
    return made


def run(dense: str | None, *rows: dict[str, Any]) -> dict[str, Any]:
    return {"rows": list(rows), "task": "fashion_mnist", "split": "test", "dense": dense}


def test_what_a_recipe_needs_is_read_from_it(composed):
    assert composed.needs("resnet56-12-blocks") == {
        "model.artifact": "resnet56-21-blocks",
        "steps.3.distill.teacher": "resnet56-dense",
    }
    assert composed.needs("fashion-smallest") == {
        "model.artifact": "fashion-narrow",
        "steps.0.prune.refine.distill.teacher": "fashion-dense",
        "steps.1.share_weights.teacher": "fashion-dense",
    }
    assert composed.needs("cifar10-resnet56") == {}


def test_a_chain_begins_after_the_training(composed):
    assert composed.chain_of("resnet56-fastest") == [
        "resnet56-21-blocks",
        "resnet56-12-blocks",
        "resnet56-fastest",
    ]
    assert composed.dense_of("resnet56-fastest") == "resnet56-dense"
    assert composed.dense_of("cifar10-resnet56") is None


def test_every_recipe_of_a_family_begins_with_its_dense_model(composed, goals):
    for family in goals.FAMILIES:
        assert set(family.made_for) == {goal.name for goal in goals.GOALS}
        for name in family.made_for.values():
            assert composed.dense_of(name) == family.dense
            assert composed.only_trains(family.dense)


def test_a_trial_has_one_epoch_of_every_training(composed, monkeypatch):
    monkeypatch.setenv("DATA", "/data")
    recipe = recipes.load(
        str(composed.RECIPES / "fashion-smallest.yaml"), overrides=composed.short("fashion-smallest")
    )
    prune, share, _ = recipe.steps
    assert (prune.refine.epochs, share.moving.epochs, share.epochs) == (1, 1, 1)


def test_recipes_are_run_after_what_they_need(composed, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(composed.subprocess, "run", lambda call, check: calls.append(call[3:]))
    given = argparse.Namespace(first=tmp_path / "out", work=tmp_path / "work", trial=False)
    composed.make("fashion-fastest", 2, given)
    made = [(call[0], Path(call[1]).stem, call[call.index("--seed") + 1]) for call in calls]
    assert made == [
        ("train", "fashion-dense", "0"),
        ("compress", "fashion-narrow", "2"),
        ("compress", "fashion-fastest", "2"),
    ]
    assert calls[-1][-2:] == ["--set", f"model.artifact={tmp_path / 'work' / 'fashion-narrow-2'}"]


def test_the_reports_of_a_chain_are_one_table(composed, tmp_path):
    for name, rows in (
        ("a", [row("original", 0.9, 400, 4.0), row("prune", 0.8, 200, 2.0), row("distill", 0.89, 200, 2.0)]),
        ("b", [row("original", 0.89, 200, 2.0), row("quantize", 0.88, 50, 1.0)]),
    ):
        (tmp_path / name).mkdir()
        report = {"rows": rows, "task": {"name": "cifar10", "reported": "test"}}
        (tmp_path / name / "report.json").write_text(json.dumps(report))
    kept = composed.of_reports([tmp_path / "a", tmp_path / "b"], "dense")
    assert [(one["step"], one["value"]) for one in kept["rows"]] == [
        ("original", 0.9), ("prune", 0.8), ("distill", 0.89), ("quantize", 0.88),
    ]  # fmt: skip
    assert [one.get("latency_ms") for one in kept["rows"]] == [4.0, None, None, 1.0]
    assert (kept["dense"], kept["task"], kept["split"]) == ("dense", "cifar10", "test")


def test_points_are_lost_against_the_dense_model(goals):
    """A recipe that trains first begins with a worse model than the dense one; it is held to the family's."""
    (family,) = [one for one in goals.FAMILIES if one.name == "resnet56"]
    runs = {
        "cifar10-resnet56": [
            run(None, row("original", 0.80, 400, 4.0), row("train", 0.89, 400), row("prune", 0.88, 100, 2.0))
        ],
        "resnet56-fastest": [
            run("resnet56-dense", row("original", 0.90, 400, 4.0), row("quantize", 0.87, 100, 1.0)),
            run("resnet56-dense", row("original", 0.92, 400, 6.0), row("quantize", 0.89, 50, 1.0)),
        ],
    }
    other, fastest = goals.standings(family, runs)
    assert goals.dense_row(runs["cifar10-resnet56"][0]["rows"])["step"] == "train"
    assert other.lost == pytest.approx(0.91 - 0.88)
    assert fastest.lost == pytest.approx(0.91 - 0.88)
    assert (fastest.runs, fastest.bytes, fastest.smaller) == (2, 75, pytest.approx(400 / 75))
    assert fastest.time == pytest.approx(1 / 5)
    assert (
        goals.standings(family, {"cifar10-resnet56": runs["cifar10-resnet56"]}) == []
    )  # nothing to be held to


def standing(goals, recipe: str, lost: float, size: float, time: float) -> Any:
    return goals.Standing(recipe, 1, 0.9 - lost, lost, size, 100 / size, 1.0, time)


def test_rules_hold_to_the_point(goals):
    smallest, fastest, half = goals.GOALS
    assert smallest.met(standing(goals, "a", 0.93 - 0.91, 1, 1))  # a hair more than 0.02 in floats
    assert not smallest.met(standing(goals, "a", 0.0201, 1, 1))
    assert half.met(standing(goals, "a", 0.005, 1, 1))
    assert not half.met(standing(goals, "a", 0.0051, 1, 1))
    assert fastest.met(standing(goals, "a", -0.01, 1, 1))


def test_who_is_better_at_a_goal(goals):
    (family,) = [one for one in goals.FAMILIES if one.name == "sst2"]
    smallest, fastest, half = goals.GOALS
    found = [
        standing(goals, "sst2-smallest", 0.019, 5, 0.8),
        standing(goals, "sst2-chain", 0.012, 10, 0.3),
        standing(goals, "sst2-half-point", 0.006, 20, 0.4),
        standing(goals, "sst2-prune", 0.001, 70, 0.5),
    ]
    assert smallest.made(family, found).recipe == "sst2-smallest"
    assert smallest.better(family, found) is None
    assert fastest.better(family, found) is None
    assert not half.met(half.made(family, found))
    assert half.better(family, found).recipe == "sst2-prune"  # the one made for it misses
    assert (
        smallest.better(family, [found[0], standing(goals, "sst2-chain", 0.0, 4, 1)]).recipe == "sst2-chain"
    )
    assert half.made(family, found[:2]) is None
    assert half.better(family, found[:2]) is None


def test_fronts_are_those_that_none_beats_at_both(goals):
    fronts = sys.modules["zoo.fronts"]
    found = [
        standing(goals, "a", 0.00, 50, 0.9),
        standing(goals, "b", 0.01, 20, 0.3),
        standing(goals, "c", 0.02, 10, 0.5),
        standing(goals, "d", 0.02, 60, 0.2),
    ]
    expected = {
        one.recipe: [
            side
            for side in ("bytes", "time")
            if not any(
                other is not one and getattr(other, side) <= getattr(one, side) and other.value >= one.value
                for other in found
            )
        ]
        for one in found
    }
    assert fronts.on_fronts(found) == expected
    assert expected == {"a": ["bytes", "time"], "b": ["bytes", "time"], "c": ["bytes"], "d": ["time"]}


def test_the_print_has_fronts_and_verdicts(composed):
    runs = [
        (
            "sst2-chain | 0",
            run("sst2-teacher", row("original", 0.9, 100, 4.0), row("quantize", 0.89, 10, 1.0)),
        ),
        (
            "sst2-half-point | 0",
            run("sst2-teacher", row("original", 0.9, 100, 4.0), row("quantize", 0.88, 20, 2.0)),
        ),
    ]
    shown = composed.fronts.printed(runs).splitlines()
    assert "| sst2-chain | 89.00% | −1.00 | 10 B | 10.0× | 1.00 ms | 4.00× | bytes and time |" in shown
    assert (
        "| fastest | sst2-chain | −1.00 | 10 B | 10.0× | 4.00× | met: least time at batch 1, at most 2 points below | – |"
        in shown
    )
    assert sum("MISSED" in text for text in shown) == 1
    assert sum("not run yet" in text for text in shown) == 1


def test_both_ends_are_timed_in_one_call(composed, tmp_path):
    task = {"name": "synthetic", "samples": 32, "shape": [1, 8, 8], "classes": 2}
    inputs = lz.task(**task).example_inputs
    for name in ("dense", "result"):
        model = lz.model("lenet_300_100", image_size=8, num_classes=2)
        artifact.save(model, tmp_path / name, example_inputs=inputs)
    deploy.export_onnx(model, inputs, tmp_path / "result" / "model.onnx")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        yaml.safe_dump(
            {"model": {"artifact": "out/dense"}, "task": task, "steps": [{"prune": {"ratio": 0.5}}]}
        )
    )
    before, after = sys.modules["timing"].timed(
        recipe,
        [f"model.artifact={tmp_path / 'dense'}"],
        tmp_path / "result",
        {"runtime": "onnxruntime", "precision": "f32"},
        repeats=3,
    )
    ways = {(entry["runtime"], entry["precision"]) for entry in before["latencies"]}
    assert (before["runtime"], before["precision"]) == ("pytorch", "f32")
    assert {("pytorch", "f32"), ("onnxruntime", "f32")} <= ways
    assert len(ways) == len(before["latencies"])
    assert before["latency_ms"] == before["latencies"][0]["median_ms"] > 0
    assert (after["runtime"], after["precision"], after["batch"]) == ("onnxruntime", "f32", 1)
    assert after["latency_ms"] == after["latencies"][0]["median_ms"] > 0


def test_times_are_taken_again_and_nothing_else(composed, tmp_path, monkeypatch, capsys):
    given = argparse.Namespace(
        first=tmp_path,
        work=tmp_path,
        finished=None,
        trial=False,
        seeds=[0],
        recipes=["sst2-prune", "sst2-chain"],
    )
    for name in ("sst2-teacher", "sst2-chain-0"):
        (tmp_path / name).mkdir()
    records = composed.Records("composed", folder=tmp_path / "results")
    for recipe in given.recipes:
        records.add(
            f"{recipe} | 0", run("sst2-teacher", row("original", 0.9, 9, 4.0), row("prune", 0.8, 5, 2.0))
        )
    asked = []

    def timed(recipe, settings, folder, last, *, repeats):
        asked.append((recipe.stem, settings, folder))
        where = {"runtime": "onnxruntime", "precision": "int8", "batch": 1}
        times = zip((9.0, 8.0, 8.5), (1.5, 2.0, 1.0), strict=True)
        return tuple({"latencies": [{**where, "median_ms": ms}]} for ms in list(times)[len(asked) - 1])

    monkeypatch.setattr(composed, "timed", timed)
    composed.time_again(records, given)
    assert (
        asked
        == [("sst2-chain", [f"model.artifact={tmp_path / 'sst2-teacher'}"], tmp_path / "sst2-chain-0")]
        * composed.PASSES
    )
    again, kept = records["sst2-chain | 0"], records["sst2-prune | 0"]
    assert [one["latency_ms"] for one in again["rows"]] == [8.0, 1.0]
    assert [one["value"] for one in again["rows"]] == [0.9, 0.8]
    assert [one["latency_ms"] for one in kept["rows"]] == [4.0, 2.0]
    assert ["timed" in made for made in records.data["made"].values()] == [False, True]
    assert f"{tmp_path / 'sst2-prune-0'} is not there" in capsys.readouterr().out
