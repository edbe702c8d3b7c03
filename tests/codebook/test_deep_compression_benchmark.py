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


@pytest.mark.parametrize("phase", ["prune", "move", "share"])
def test_a_phase_that_was_stopped_goes_on(phase, tmp_path, monkeypatch):
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
        options={**benchmark.LENET, "batch_size": 16},
    )  # fmt: skip

    def compressed(folder):
        return benchmark.compressed(copy.deepcopy(model), teacher, task, plan, 0, folder, "cpu").state_dict()

    whole = compressed(tmp_path / "whole")
    fit, asked = benchmark.train.fit, []

    def stopped(model, task, options, *, directory, step, **more):
        def counted(*given):
            asked.append(directory.name)
            if asked.count(f"{phase}-0") == 9:
                raise KeyboardInterrupt
            return step(*given)

        return fit(model, task, options, directory=directory, step=counted, **more)

    with monkeypatch.context() as patched:
        patched.setattr(benchmark.train, "fit", stopped)
        with pytest.raises(KeyboardInterrupt):
            compressed(tmp_path / "parts")
    assert (tmp_path / "parts" / f"{phase}-0").is_dir()
    again = compressed(tmp_path / "parts")
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    assert [file.name for file in sorted((tmp_path / "parts").iterdir())] == [
        "compressed-0.safetensors",
        "pruned-0.safetensors",
    ]
