"""Is a latency budget met? Plans for half of the latency, then measures both models in a process of its own.

    python benchmarks/latency_budget.py                          # ResNet-56, ONNX Runtime, batch 64
    python benchmarks/latency_budget.py --bert out/sst2          # and a text classifier's artifact at batch 1

`lz.prune.plan(latency=0.5)` times trial plans while it searches. What it promises is checked by a fresh process,
which knows nothing of the search: it loads the two ONNX files and times them in turns. The share must be at most
0.525 (the budget and a twentieth of it for the clock). Widths alone decide the latency: the weights of ResNet-56 are
the published ones, and nothing is trained.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from records import RESULTS, Records

import lianzhi as lz
from lianzhi import artifact, deploy
from lianzhi.measure import settle
from lianzhi.prune.latency import repeated

BUDGET, ALLOWED, ROUNDS = 0.5, 1.05, 31


def measure(folder: Path, target: str, batch: int) -> dict[str, Any]:
    """In turns, call by call: milliseconds of both, and the median share."""
    inputs = repeated(torch.load(folder / "inputs.pt", weights_only=True), batch)
    original, pruned = (
        deploy.load(folder / f"{name}.onnx", runtime=target, precision="f32")
        for name in ("original", "pruned")
    )

    def once(session: Any) -> float:
        start = time.perf_counter()
        session(inputs)
        return (time.perf_counter() - start) * 1000

    for session in (original, pruned) * 3:
        once(session)
    calls = max(3, round(20 / once(original)))

    def block(session: Any) -> float:
        settle(lambda: session(inputs))
        return statistics.median(once(session) for _ in range(calls))

    pairs = [(block(original), block(pruned)) for _ in range(ROUNDS)]
    return {
        "original_ms": statistics.median(before for before, _ in pairs),
        "pruned_ms": statistics.median(after for _, after in pairs),
        "share": statistics.median(after / before for before, after in pairs),
        "threads": original.threads,
        "precision": original.precision,
        "rounds": ROUNDS,
        "calls_a_round": calls,
    }


def run(model: torch.nn.Module, inputs: Any, target: str, batch: int) -> dict[str, Any]:
    """Plan here, measure elsewhere."""
    start = time.perf_counter()
    plan = lz.prune.plan(model, inputs, latency=BUDGET, target=target, batch=batch)
    seconds, exact = time.perf_counter() - start, plan.verify()
    with tempfile.TemporaryDirectory(prefix="lianzhi-") as name:
        folder = Path(name)
        deploy.export_onnx(model, inputs, folder / "original.onnx")
        deploy.export_onnx(plan.apply(), inputs, folder / "pruned.onnx")
        torch.save(inputs, folder / "inputs.pt")
        command = [sys.executable, __file__, "--measure", name, "--target", target, "--batch", str(batch)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return {
        **json.loads(done.stdout),
        "target": target,
        "batch": batch,
        "budget": BUDGET,
        "planning_seconds": seconds,
        "verified": exact,
        "macs_left": plan.count("macs") / plan.count("macs", {}),
        "notes": plan.notes,
    }


def main() -> int:
    """Run what is not on record, and say whether every budget is met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LIANZHI_DATA", "../shared/data")))
    parser.add_argument("--model", default="resnet56", help="a CIFAR model of the zoo")
    parser.add_argument("--bert", type=Path, help="the artifact folder of a text classifier")
    parser.add_argument("--target", default="onnxruntime")
    parser.add_argument("--batch", type=int, default=64, help="of the image model")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.target, given.batch)))
        return 0
    records = Records("latency_budget", folder=given.results)
    jobs = [f"{given.model} {given.target} batch {given.batch}"]
    jobs += [f"{given.bert.name} {given.target} batch 1"] if given.bert else []
    for index, key in enumerate(jobs):
        if key not in records:
            if index:
                model, inputs, batch = artifact.load(given.bert), artifact.example_inputs(given.bert), 1
            else:
                weights = given.data / "cifar10" / f"{given.model}.safetensors"
                model, inputs = lz.model(given.model, weights=weights), torch.zeros(1, 3, 32, 32)
                batch = given.batch
            records.add(key, run(model.eval(), inputs, given.target, batch))
        record = records[key]
        met = record["share"] <= BUDGET * ALLOWED
        print(
            f"{key}: {record['original_ms']:.2f} -> {record['pruned_ms']:.2f} ms, {record['share']:.1%} remain "
            f"({'met' if met else 'MISSED'}; {record['macs_left']:.1%} of MACs)"
        )
    return 0 if all(records[key]["share"] <= BUDGET * ALLOWED for key in jobs) else 1


if __name__ == "__main__":
    raise SystemExit(main())
