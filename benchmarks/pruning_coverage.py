"""Which models can be pruned, exactly: every one at 30 % and 50 % of channels, proved, run, exported, reloaded.

    make coverage               # the zoo and transformers
    make coverage-vision        # torchvision's models, in an environment of their own

Each model runs in a process of its own: a crash or a timeout is one row. What is on record is not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from records import Records, records_of, trial_options

LISTS = ("zoo", "transformers", "vision")
RATIOS = (0.3, 0.5)
EXACT = 1e-5
TRIAL = ("lenet5", "resnet20", "bert")  # of each list those that it has


def names_of(which: str) -> list[str]:
    """The models of a list."""
    if which == "zoo":
        from lianzhi import models

        return [
            name for name in models.registry.names() if name != "huggingface"
        ]  # the list below is of these
    if which == "transformers":
        from coverage_transformers import ENTRIES

        return list(ENTRIES)
    from coverage_vision import NAMES

    return NAMES


def make(which: str, name: str) -> tuple[Any, Any]:
    """A model with random weights, and example inputs."""
    import torch

    torch.manual_seed(0)
    if which == "zoo":
        return _zoo(name)
    if which == "transformers":
        from coverage_transformers import ENTRIES

        return ENTRIES[name]()
    from coverage_vision import make as vision

    return vision(name)


def _zoo(name: str) -> tuple[Any, Any]:
    """A model of the zoo on the input that it is made for."""
    import torch

    import lianzhi
    from lianzhi import models

    model = lianzhi.model(name).eval()
    return model, torch.randn(1, *models.input_shape(model))


def measure(which: str, name: str) -> dict[str, Any]:
    """One row: seconds of each part and the errors of the proof."""
    import torch
    from torch.utils import _pytree as pytree

    from lianzhi.deploy import export_onnx, load
    from lianzhi.prune import plan

    model, inputs = make(which, name)
    model.eval()
    row: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters()), "ratios": {}}
    for ratio in RATIOS:
        start, busy = time.perf_counter(), time.process_time()
        decided = plan(model, inputs, ratio=ratio, scope="layer")
        planned = time.perf_counter()
        small = decided.apply()
        applied, busy = time.perf_counter(), time.process_time() - busy
        error = decided.verify()
        proved = time.perf_counter()
        entry = {
            "plan_seconds": round(planned - start, 3), "surgery_seconds": round(applied - planned, 3),
            "cpu_seconds": round(busy, 3), "proof_seconds": round(proved - applied, 3), "error": error,
            "result": decided.result_kind, "reason": decided.result_reason, "parameters": sum(p.numel() for p in small.parameters()),
            "unprunable": len(decided.unprunable),
        }  # fmt: skip
        row["ratios"][str(ratio)] = entry
        if not error <= EXACT:
            raise AssertionError(f"the proof failed at {ratio}: {error:.2e}")
        _backward(small, inputs)
        small.eval()
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            path = export_onnx(small, inputs, Path(folder) / "model.onnx")
            session = load(path, runtime="onnxruntime")
            found = pytree.tree_leaves(session(inputs))
            entry["export_seconds"] = round(time.perf_counter() - start, 3)
        with torch.no_grad():
            wanted = [x for x in pytree.tree_leaves(_call(small, inputs)) if isinstance(x, torch.Tensor)]
        entry["onnx_error"] = max(
            float((torch.as_tensor(b) - a).abs().max() / a.abs().max().clamp_min(1e-6))
            for a, b in zip(wanted, found, strict=False)
        )
        if not entry["onnx_error"] < 1e-3:
            raise AssertionError(f"ONNX Runtime computes something else: {entry['onnx_error']:.2e}")
    return row


def _call(model: Any, inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def _backward(model: Any, inputs: Any) -> None:
    """Forward and backward in training mode, on a batch of two."""
    import torch
    from torch.utils import _pytree as pytree

    model.train()
    two = pytree.tree_map(lambda x: torch.cat([x, x]) if isinstance(x, torch.Tensor) else x, inputs)
    outputs = [
        x for x in pytree.tree_leaves(_call(model, two)) if isinstance(x, torch.Tensor) and x.requires_grad
    ]
    sum(x.float().square().mean() for x in outputs).backward()  # type: ignore[union-attr]
    if not any(p.grad is not None for p in model.parameters()):
        raise AssertionError("no gradient arrives")


def run_one(which: str, name: str, limit: float) -> dict[str, Any]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--one", f"{which}/{name}"]
    start = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"ok": False, "why": f"took more than {limit:.0f} s"}
    seconds = round(time.perf_counter() - start, 1)
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            return {**json.loads(line), "seconds": seconds}
    return {
        "ok": False,
        "why": f"ended with {done.returncode}: {done.stderr.strip()[-300:]}",
        "seconds": seconds,
    }


def table(records: Records) -> str:
    """The rows as text: seconds of capture, groups, plan and surgery, and the error of the proof."""
    lines = [
        f"{'model':<50}{'plan s':>8}{'surgery':>9}{'error 30%':>11}{'error 50%':>11}{'onnx':>10}  result"
    ]
    for name, row in records.items():
        if not row.get("ok"):
            lines.append(f"{name:<50}  FAILED: {row.get('why', '')[:120]}")
            continue
        first, second = (row["ratios"][str(ratio)] for ratio in RATIOS)
        lines.append(
            f"{name:<50}{second['plan_seconds']:>8.2f}{second['surgery_seconds']:>9.2f}{first['error']:>11.1e}"
            f"{second['error']:>11.1e}{second['onnx_error']:>10.1e}  {second['result']}"
        )
    passed = sum(bool(row.get("ok")) for _, row in records.items())
    return "\n".join(
        [*lines, f"{passed} of {len(records)} models pruned, proved, run, exported and reloaded"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", choices=LISTS, default="zoo")
    parser.add_argument("--only", nargs="*", help="names of models")
    parser.add_argument("--again", action="store_true", help="run again what failed before")
    parser.add_argument("--limit", type=float, default=900, help="seconds a model")
    parser.add_argument(
        "--workers", type=int, default=1, help="models at a time; with more, times are of a busy machine"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    trial_options(parser, f"only {' and '.join(TRIAL)}")
    options = parser.parse_args()
    if options.one:
        warnings.simplefilter("ignore")
        which, _, name = options.one.partition("/")
        try:
            row = {"ok": True, **measure(which, name)}
        except Exception as error:
            row = {"ok": False, "why": f"{type(error).__name__}: {str(error)[:600]}"}
        print(json.dumps(row))
        return
    records = records_of(f"pruning_coverage_{options.list}", options)
    if options.trial:
        options.only = [*TRIAL]

    def cover(name: str) -> None:
        row = run_one(options.list, name, options.limit)
        records.add(name, row)
        print(f"{name}: {'ok' if row['ok'] else row['why'][:200]} ({row.get('seconds', 0)} s)", flush=True)

    def missing(name: str) -> bool:
        return name not in records or (options.again and not records[name]["ok"])

    names = [name for name in names_of(options.list) if not options.only or name in options.only]
    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(cover, filter(missing, names)))
    print(table(records))


if __name__ == "__main__":
    main()
