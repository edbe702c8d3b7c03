"""The benchmark's phases, stopped in the middle of each: what comes out is what an undisturbed run gives."""

from __future__ import annotations

import copy
import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import lianzhi as lz

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize(("phase", "layers"), [("prune", ()), ("move", ("1", "3")), ("share", ())])
def test_a_phase_that_was_stopped_goes_on(phase, layers, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    benchmark = importlib.import_module("deep_compression")
    monkeypatch.setattr(benchmark, "EVERY", 2)
    task = lz.task("synthetic", samples=128, classes=4, shape=(1, 8, 8))
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4)
    )
    teacher = copy.deepcopy(model).eval()
    plan = replace(
        benchmark.PLANS["lenet_300_100"], prune=4, move=2, share=2, kept=0.3, bits=3,
        options={**benchmark.PLANS["lenet_300_100"].options, "batch_size": 16}, layers=layers,
    )  # fmt: skip

    def compressed(folder):
        return benchmark.compressed(copy.deepcopy(model), teacher, task, plan, 0, folder, "cpu").state_dict()

    whole = compressed(tmp_path / "whole")
    fit, asked, end = benchmark.train.fit, [], 9  # in the second epoch

    def stopped(model, task, options, *, directory, step, **more):
        def counted(*given):
            asked.append(directory.name)
            if asked.count(f"{phase}-0") == end:
                raise KeyboardInterrupt
            return step(*given)

        return fit(model, task, options, directory=directory, step=counted, **more)

    monkeypatch.setattr(benchmark.train, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        compressed(tmp_path / "parts")
    first, asked, end = asked, [], None
    again = compressed(tmp_path / "parts")
    epoch, name = task.steps("train", 16), f"{phase}-0"
    assert epoch < first.count(name) == 9
    assert asked.count(name) == getattr(plan, phase) * epoch - epoch  # not those of the first epoch again
    assert set(asked).isdisjoint(set(first) - {name})
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    assert [file.name for file in sorted((tmp_path / "parts").iterdir())] == [
        "compressed-0.safetensors",
        "pruned-0.safetensors",
    ]


def test_what_a_trial_makes_is_not_where_the_full_run_looks(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    benchmark = importlib.import_module("deep_compression")
    asked = []

    def train_dense(name, task, plan, seed, file, *more):
        asked.append(file.parent)
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "task_of", lambda *given: None)
    monkeypatch.setattr(benchmark, "train_dense", train_dense)
    for more in ([], ["--trial"]):
        options = ["--model", "lenet_5", "--work", str(tmp_path), "--results", str(tmp_path), *more]
        monkeypatch.setattr("sys.argv", ["deep_compression.py", *options])
        with pytest.raises(KeyboardInterrupt):
            benchmark.main()
    assert asked == [tmp_path / "lenet_5", tmp_path / "trial" / "lenet_5"]
