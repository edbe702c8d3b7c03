"""Post-training quantization beside NNCF and ONNX Runtime's static tool, on the same calibration data.

    make bench-quantization          # an environment of its own, with NNCF
    .venv-bench/bin/python benchmarks/quantization.py --cases resnet20 bert6 --bert out/sst2-teacher

For each model the float file, ours for ONNX Runtime and for OpenVINO, and the peers'. Accuracy is that of the file in
the runtime that it is for; `agreement` is with the float module. Latencies are taken in turns with the float file in
the same runtime, the faster of float32 and bfloat16 where there are both. ResNets are fine-tuned on this copy of
CIFAR-10 first; SST-2's teacher comes from `lianzhi train recipes/sst2-teacher.yaml -o out/sst2-teacher`. What is on
record is not done again. Test data choose nothing: the options of ours are the defaults, and one technique each.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from quantization_cases import NAMES, Case, make
from quantization_peers import nncf, onnxruntime_static, open_ir
from records import Records, records_of, trial_options
from torch import Tensor

from lianzhi import deploy, measure, quantize
from lianzhi.measure import both_in_turns
from lianzhi.prune.latency import repeated

OURS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, bias correction": {"techniques": ["bias_correction"]},
    "ours, smoothquant": {"techniques": ["smoothquant"]},
}
TRANSFORMERS = ("bert6",)  # which smoothquant is for; NNCF smooths them by itself
RUNTIMES = ("onnxruntime", "openvino")
PEERS = {"onnxruntime": "onnxruntime static", "openvino": "nncf"}
ROUNDS = 15
TOP5_FROM = 100  # classes, from which the five likeliest say something
TRIAL = 128  # samples a split


def logits(outputs: Any) -> Tensor:
    """The first output, whatever holds it."""
    while not isinstance(outputs, Tensor):
        outputs = next(iter(outputs.values())) if isinstance(outputs, dict) else outputs[0]
    return outputs


def choices(predict: Any, case: Case) -> Tensor:
    """The likeliest classes for every sample, in order, at most five (samples, 5): the first is the one chosen."""
    found = []
    with torch.no_grad():
        for inputs, _ in case.evaluation:
            scores = logits(predict(inputs))
            found.append(scores.topk(min(5, scores.shape[-1])).indices)
    return torch.cat(found)


def call(model: Any) -> Any:
    """A module as a function of example inputs."""
    return lambda inputs: model(**inputs) if isinstance(inputs, dict) else model(inputs)


def made(case: Case, method: str, runtime: str, seed: int, folder: Path) -> tuple[Path, float]:
    """Quantize, write, and say how many seconds it took from the float model or file, export left out for ours."""
    data = case.calibration(seed)
    if method == "float":
        return folder / "float.onnx", 0.0
    if method in OURS:
        start = time.perf_counter()
        form = quantize.quantize(case.model, case.example, data, target=runtime, **OURS[method])
        seconds = time.perf_counter() - start
        return form.export(folder / f"{runtime}-{list(OURS).index(method)}-{seed}.onnx"), seconds
    start = time.perf_counter()
    source = folder / "float.onnx"
    if method == "nncf":
        file = nncf(source, folder / f"nncf-{seed}.xml", data, transformer=case.name == "bert6")
    else:
        file = onnxruntime_static(source, folder / f"peer-{seed}.onnx", data)
    return file, time.perf_counter() - start


def opened(file: Path, runtime: str, precision: str | None = None) -> deploy.Session:
    """The file in a runtime."""
    if file.suffix == ".xml":
        return open_ir(file)
    return deploy.load(file, runtime=runtime, precision=precision)


def size(file: Path) -> int:
    """Bytes of a file, with the weights beside it."""
    return measure.size(file) + (file.with_suffix(".bin").stat().st_size if file.suffix == ".xml" else 0)


def timed(case: Case, file: Path, runtime: str, floating: Path) -> dict[str, Any]:
    """For each batch size: milliseconds, and the share of the fastest float of the same runtime."""
    found = {}
    for batch in case.batches:
        inputs, trial = repeated(case.example, batch), opened(file, runtime)
        against = []
        for precision in deploy.registry.get(runtime).build.precisions(floating):
            original = opened(floating, runtime, precision)
            turns = both_in_turns(partial(original, inputs), partial(trial, inputs), ROUNDS)
            against.append((turns.ratio, precision, turns))
        ratio, precision, turns = max(against, key=lambda item: item[0])
        found[str(batch)] = {
            "ms": turns.trial_ms,
            "float_ms": turns.original_ms,
            "float": precision,
            "share": ratio,
        }
    return found


def peers(wanted: bool) -> dict[str, str]:
    """The peer of each runtime; in a trial those that are not installed are left out, and named."""
    if wanted or importlib.util.find_spec("nncf"):
        return PEERS
    print("nncf is not installed: left out")
    return {runtime: peer for runtime, peer in PEERS.items() if peer != "nncf"}


def compare(case: Case, records: Records, seeds: list[int], work: Path, peers: dict[str, str]) -> None:
    """Every method on every runtime, those on record left out."""
    folder = work / case.name
    folder.mkdir(parents=True, exist_ok=True)
    deploy.export_onnx(case.model, case.example, folder / "float.onnx")
    labels = torch.cat([labels for _, labels in case.evaluation])
    exact = choices(call(case.model), case)[:, 0]
    for runtime in RUNTIMES:
        for method in ("float", *OURS, *([peers[runtime]] if runtime in peers else [])):
            if method == "ours, smoothquant" and case.name not in TRANSFORMERS:
                continue
            for seed in seeds if method != "float" else [0]:
                key = f"{case.name} | {runtime} | {method} | {seed}"
                if key in records:
                    continue
                file, seconds = made(case, method, runtime, seed, folder)
                ranked = choices(opened(file, runtime, "f32" if method == "float" else None), case)
                found = ranked[:, 0]
                record = {
                    "value": float((found == labels).double().mean()),
                    "right": int((found == labels).sum()),
                    "agreement": float((found == exact).double().mean()),
                    "samples": case.samples,
                    "bytes": size(file),
                    "seconds": round(seconds, 2),
                }
                if case.classes > TOP5_FROM:
                    record["top5"] = float((ranked == labels[:, None]).any(1).double().mean())
                if method != "float" and seed == seeds[0]:
                    record["latencies"] = timed(case, file, runtime, folder / "float.onnx")
                records.add(key, record)
                print(f"{key}: {record['value']:.2%}, agreement {record['agreement']:.2%}", flush=True)


def row(records: Records, case: str, runtime: str, method: str) -> dict[str, Any] | None:
    """Means over the seeds on record."""
    start = f"{case} | {runtime} | {method} | "
    runs = [record for key, record in records.items() if key.startswith(start)]
    if not runs:
        return None
    latencies = next((run["latencies"] for run in runs if "latencies" in run), {})
    means = {
        key: statistics.mean(run[key] for run in runs)
        for key in ("value", "right", "agreement", "bytes", "seconds")
    }
    return {**means, "samples": runs[0]["samples"], "seeds": len(runs), "latencies": latencies}


def table(records: Records) -> str:
    """One table of everything on record."""
    lines = [
        "| model | runtime | method | top-1 | lost | agreement | MB | ms (share of float) | seconds | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in NAMES:
        for runtime in RUNTIMES:
            base = row(records, case, runtime, "float")
            for method in ("float", *OURS, PEERS[runtime]):
                found = row(records, case, runtime, method)
                if found is None or base is None:
                    continue
                times = "; ".join(
                    f"batch {batch}: {item['ms']:.2f} ({item['share']:.2f} of {item['float']})"
                    for batch, item in found["latencies"].items()
                )
                lost = f"{base['right'] - found['right']:.1f} of {found['samples']}"
                lines.append(
                    f"| {case} | {runtime} | {method} | {found['value']:.2%} | {lost} | {found['agreement']:.2%} "
                    f"| {found['bytes'] / 1e6:.2f} | {times} | {found['seconds']:.1f} | {found['seeds']} |"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="*", default=list(NAMES), choices=NAMES)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--bert", type=Path, default=Path("out/sst2-teacher"))
    parser.add_argument("--dense-epochs", type=float, default=10, help="of fine-tuning the ResNets first")
    parser.add_argument("--work", type=Path, default=Path("out/quantization"))
    trial_options(parser, f"{TRIAL} samples, one seed, published weights")
    given = parser.parse_args()
    if given.trial:
        given.seeds, given.dense_epochs = [0], 0
    records = records_of("quantization", given)
    beside = peers(not given.trial)
    for name in given.cases:
        case = make(name, given.bert, epochs=given.dense_epochs, limit=TRIAL if given.trial else None)
        compare(case, records, given.seeds if name != "lite0" else given.seeds[:1], given.work, beside)
    print(table(records))


if __name__ == "__main__":
    main()
