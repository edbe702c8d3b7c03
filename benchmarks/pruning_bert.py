"""A pruned text classifier against its original: accuracy, encoder weights, and speed on the task's own sentences.

    python benchmarks/pruning_bert.py out/sst2-teacher out/sst2-prune      # two artifacts, float32 ONNX Runtime

Every sentence of GLUE's SST-2 dev set is timed alone and at its own length. A block of sentences goes through one
model, then through the other; each block begins with calls that do not count, until the other's threads sleep.
"""

from __future__ import annotations

import argparse
import functools
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from records import records_of, trial_options

import lianzhi as lz
from lianzhi import artifact, deploy
from lianzhi.measure import settle

BLOCK = 64
TRIAL = 64


def encoder_parameters(folder: Path) -> int:
    """Weights of the layers between embeddings and classifier."""
    named = artifact.load(folder).named_parameters()
    return sum(tensor.numel() for name, tensor in named if ".encoder." in name)


def milliseconds(session: Any, inputs: Any) -> float:
    """One call."""
    start = time.perf_counter_ns()
    session(inputs)
    return (time.perf_counter_ns() - start) / 1e6


def timed(sessions: dict[str, Any], sentences: list[Any], rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds of each sentence, the median over rounds."""
    times: dict[str, list[list[float]]] = {name: [] for name in sessions}
    for _ in range(rounds):
        found: dict[str, list[float]] = {name: [] for name in sessions}
        for start in range(0, len(sentences), BLOCK):
            block = sentences[start : start + BLOCK]
            for name, session in sessions.items():
                settle(functools.partial(session, block[0]))
                found[name] += [milliseconds(session, inputs) for inputs in block]
        for name in sessions:
            times[name].append(found[name])
    return {name: np.median(np.array(rows), axis=0) for name, rows in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("original", type=Path, help="artifact folder of the original")
    parser.add_argument("pruned", type=Path, help="artifact folder of the pruned model")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LIANZHI_DATA", "../shared/data")))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="default: all cores")
    trial_options(parser, f"{TRIAL} sentences, once")
    given = parser.parse_args()
    limit = {"limit": TRIAL} if given.trial else {}
    tokenizer = str(given.original / "tokenizer")
    task = lz.task("sst2", data=given.data / "glue" / "SST-2", tokenizer=tokenizer, segments=True, **limit)
    folders = {"original": given.original, "pruned": given.pruned}
    sessions = {
        name: deploy.load(
            folder / "model.onnx", runtime="onnxruntime", precision="f32", threads=given.threads
        )
        for name, folder in folders.items()
    }
    sentences = [batch.inputs for batch in task.batches(task.reported, 1)]
    times = timed(sessions, sentences, 1 if given.trial else given.rounds)
    result: dict[str, Any] = {
        name: {
            "accuracy": lz.measure.evaluate(sessions[name], task, batch_size=64).value,
            "encoder_parameters": encoder_parameters(folder),
            "mean_ms": float(times[name].mean()),
            "median_ms": float(np.median(times[name])),
        }
        for name, folder in folders.items()
    }
    before, after = result["original"], result["pruned"]
    result |= {
        "sentences": len(sentences),
        "threads": sessions["original"].threads,
        "speed_up": before["mean_ms"] / after["mean_ms"],
        "encoder_removed": 1 - after["encoder_parameters"] / before["encoder_parameters"],
        "points_lost": 100 * (before["accuracy"] - after["accuracy"]),
    }
    records_of("pruning_bert", given).add(f"{given.original.name} -> {given.pruned.name}", result)
    for name in folders:
        row = result[name]
        print(
            f"{name:<9} {row['accuracy']:.2%}  {row['encoder_parameters'] / 1e6:.2f}M encoder weights  "
            f"{row['mean_ms']:.2f} ms a sentence (median {row['median_ms']:.2f})"
        )
    good = {
        f"{result['encoder_removed']:.1%} of the encoder removed (at least half)": result["encoder_removed"]
        >= 0.5,
        f"{result['points_lost']:+.2f} points lost (at most 1)": result["points_lost"] <= 1,
        f"{result['speed_up']:.2f}x as fast (at least 1.7)": result["speed_up"] >= 1.7,
    }
    for text, met in good.items():
        print(f"{text}: {'met' if met else 'MISSED'}")
    return 0 if given.trial or all(good.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
