"""Rows of the report: the original is timed at both ends of a run."""

from __future__ import annotations

from types import SimpleNamespace

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import lianzhi as lz
from lianzhi.errors import DataError
from lianzhi.pipeline.rows import accuracy, deployed_keys, retimed


def entry(runtime, batch, median):
    return {
        "runtime": runtime,
        "precision": "f32",
        "batch": batch,
        "threads": 2,
        "median_ms": median,
        "p90_ms": median,
        "repeats": 9,
    }


def row(step, latencies, deployed):
    return {"step": step, "latencies": latencies, **deployed_keys(deployed)}


def test_the_shorter_of_two_times_counts_for_every_row_of_the_originals_structure():
    first = [entry("pytorch", 1, 9.0), entry("onnxruntime", 1, 4.0), entry("onnxruntime", 64, 50.0)]
    again = [entry("pytorch", 1, 5.0), entry("onnxruntime", 1, 4.5), entry("onnxruntime", 64, 40.0)]
    pruned = [entry("pytorch", 1, 4.0), entry("onnxruntime", 1, 2.0)]
    rows = [
        row("original", first, first[0]),
        row("train", list(first), first[1]),
        row("prune", pruned, pruned[1]),
    ]
    original, trained, small = retimed(rows, again, 1)
    assert [item["median_ms"] for item in original["latencies"]] == [5.0, 4.0, 40.0]
    assert (original["runtime"], original["latency_ms"]) == ("pytorch", 5.0)
    assert trained["latencies"] == original["latencies"]
    assert (trained["runtime"], trained["latency_ms"]) == ("onnxruntime", 4.0)
    assert small == rows[2]


def test_splits_that_are_reported_too_stand_among_the_metrics():
    loaders = {
        name: [(torch.eye(2)[[0, 1, 1, 0]], torch.tensor(labels))]
        for name, labels in {"test": [0, 1, 1, 0], "validation": [0, 1, 1, 1], "night": [0, 0, 0, 0]}.items()
    }
    task = lz.Task(
        test=loaders["test"],
        validation=loaders["validation"],
        also={"night": loaders["night"]},
        labels=["a", "b"],
    )
    run = SimpleNamespace(task=task, progress=False, leads=True)
    reported, validation = accuracy(run, lambda inputs: inputs)
    assert (reported.split, reported.value, validation) == ("test", 1.0, 0.75)
    assert reported.metrics == {"top1": 1.0, "night_top1": 0.5}
    assert task.description()["splits"] == {"validation": 4, "test": 4, "night": 4}
    with pytest.raises(DataError, match="'also' names the split 'test', which has its own argument"):
        lz.Task(test=loaders["test"], also={"test": loaders["night"]})


def test_parameters_that_are_not_zero_are_counted_in_the_integers_that_ship(task, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, 4))
    with torch.no_grad():
        model[1].weight[:16, 0] = 9.0  # beside these the others of their rows are rounded to zero
    steps = [
        lz.Prune(granularity="weight", ratio=0.8, scope="layer"),
        lz.Quantize(calibration=32, techniques=["gptq"]),
    ]
    result = lz.compress(
        model,
        task,
        steps,
        output=tmp_path / "out",
        target="onnxruntime",
        precision="int8",
        measure=lz.Measure(batches=(1,), repeats=1, max_drop=1.0),
        progress=False,
    )
    stored = [
        numpy_helper.to_array(item) for item in onnx.load(tmp_path / "out" / "model.onnx").graph.initializer
    ]
    integers = sum(int((item != 0).sum()) for item in stored if item.ndim > 1 and item.dtype == "int8")
    biases = sum(int(layer.bias.count_nonzero()) for layer in (model[1], model[3]))
    _, pruned, quantized = (row["nonzero"] for row in result.report.rows)
    assert quantized == integers + biases < pruned
