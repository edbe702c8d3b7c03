"""A report as a run writes it, made from code: the numbers are inputs of tests, not measurements."""

from __future__ import annotations

from typing import Any

BATCHES = (1, 64)
FLOAT = {
    ("pytorch", "f32"): (1.72, 121.0),
    ("onnxruntime", "f32"): (1.21, 103.0),
    ("openvino", "f32"): (1.05, 97.0),
    ("openvino", "bf16"): (0.42, 13.1),
}
PRUNED = {
    ("pytorch", "f32"): (1.30, 48.2),
    ("onnxruntime", "f32"): (0.52, 38.0),
    ("openvino", "f32"): (0.47, 36.5),
    ("openvino", "bf16"): (0.24, 7.2),
}
INT8 = PRUNED | {("onnxruntime", "int8"): (0.31, 14.9), ("openvino", "int8"): (0.156, 4.61)}


def entries(times: dict[tuple[str, str], tuple[float, float]], threads: int = 2) -> list[dict[str, Any]]:
    """Latency entries of a table of medians."""
    return [
        {
            "runtime": runtime,
            "precision": precision,
            "batch": batch,
            "threads": threads,
            "median_ms": medians[index],
            "p90_ms": round(medians[index] * 1.08, 4),
        }
        for index, batch in enumerate(BATCHES)
        for (runtime, precision), medians in times.items()
    ]


def row(
    step: str, value: float, times: dict[tuple[str, str], tuple[float, float]], **rest: Any
) -> dict[str, Any]:
    """One row; the deployed one is the fastest at batch 1, or eager PyTorch for the original."""
    measured = entries(times)
    singles = [entry for entry in measured if entry["batch"] == 1]
    shipped = singles[0] if step == "original" else min(singles, key=lambda entry: entry["median_ms"])
    return {
        "step": step,
        "metric": "top1",
        "value": value,
        "split": "test",
        "samples": 10000,
        "validation": round(value + 0.0041, 4),
        "latencies": measured,
        "latency_ms": shipped["median_ms"],
        "latency_p90_ms": shipped["p90_ms"],
        "runtime": shipped["runtime"],
        "precision": shipped["precision"],
        "batch": 1,
        **rest,
    }


def layers() -> list[dict[str, Any]]:
    """Channels of a 13-layer ResNet, before and after."""
    kept = {64: (32, 64, 40, 64), 128: (56, 128, 72, 128), 256: (96, 256, 64, 256)}
    made = [{"name": "stem.0", "before": 64, "after": 64}]
    for stage, (width, values) in enumerate(kept.items()):
        for index, after in enumerate(values):
            name = f"stages.{stage}.{index // 2}.conv{index % 2 + 1}"
            made.append({"name": name, "before": width, "after": after})
    return made


def candidate(runtime: str, precision: str, median: float, validation: float, verdict: str) -> dict[str, Any]:
    """One candidate of the decision."""
    size = 1_043_221 if precision == "int8" else 4_021_337
    file = f"{runtime}-int8.onnx" if precision == "int8" else "float.onnx"
    return {
        "runtime": runtime,
        "precision": precision,
        "file": file,
        "median_ms": median,
        "validation": validation,
        "bytes": size,
        "verdict": verdict,
    }


def recipe() -> dict[str, Any]:
    """The resolved recipe."""
    return {
        "model": {"name": "resnet13", "widths": [64, 128, 256]},
        "task": {"name": "fashion_mnist", "data": "/data/fashion_mnist"},
        "target": "auto",
        "seed": 0,
        "steps": [
            {"sparsify": {"coefficient": 1e-4, "epochs": 5}},
            {"prune": {"criterion": "bn_scale", "scope": "global", "ratio": 0.5, "round_to": 8}},
            {"distill": {"method": "kd", "temperature": 4.0, "epochs": 10}},
            {"quantize": {"method": "ptq", "calibration": 512}},
        ],
    }


def sample() -> dict[str, Any]:
    """The whole report."""
    dense = {"parameters": 2_777_674, "bytes": 11_131_904, "macs": 219_400_000, "memory_mb": 61.2}
    small = {"parameters": 998_412, "bytes": 4_021_337, "macs": 84_300_000, "memory_mb": 38.4}
    return {
        "rows": [
            row("original", 0.9312, FLOAT, seconds=0.0, **dense),
            row("sparsify", 0.9287, FLOAT, seconds=161.4, **dense, details={"history": {"steps": 2150}}),
            row("prune", 0.8713, PRUNED, seconds=9.3, **small, details={"verified": 2.1e-6}),
            row("distill", 0.9284, PRUNED, seconds=214.9, **small),
            row("quantize", 0.9276, INT8, seconds=12.7, **(small | {"bytes": 1_043_221, "memory_mb": 24.1})),
        ],
        "recipe": recipe(),
        "environment": {
            "cpu": "Example Server CPU @ 2.00 GHz",
            "cores": 2,
            "flags": ["avx512", "vnni", "amx"],
            "python": "3.11.2",
            "versions": {"torch": "2.13.0", "onnxruntime": "1.24.1", "openvino": "2026.1"},
        },
        "layers": layers(),
        "decision": {
            "runtime": "openvino",
            "precision": "int8",
            "file": "model.onnx",
            "batch": 1,
            "max_drop": 0.01,
            "reference": 0.9325,
            "reason": "openvino in int8 took 0.156 ms at batch 1, the fastest of 3 accurate enough",
            "candidates": [
                candidate("openvino", "int8", 0.156, 0.9317, "kept"),
                candidate("openvino", "bf16", 0.24, 0.9325, "slower"),
                candidate("onnxruntime", "int8", 0.31, 0.9312, "slower"),
                candidate(
                    "tensorrt",
                    "int8",
                    0.12,
                    0.8911,
                    "too inaccurate: 0.8911 on validation, at least 0.9225 wanted",
                ),
            ],
        },
        "notes": [
            "int8 was kept off conv stem.0: float is faster there",
            "the data are Fashion-MNIST as packaged by Debian",
        ],
        "task": {
            "name": "fashion_mnist",
            "source": "/data/fashion_mnist",
            "reported": "test",
            "sizes": {"train": 53976, "validation": 5000, "calibration": 1024, "test": 10000},
        },
        "artifact": {"path": "out/demo", "files": ["model.safetensors", "model.onnx", "report.html"]},
    }


def quantized(names: list[str]) -> dict[str, Any]:
    """What the quantization of some layers wrote about itself."""
    layers = [
        {
            "name": name,
            "type": "conv2d",
            "weight_sqnr_db": 50.5 - index,
            "output_sqnr_db": 41.25 - 1.5 * index,
        }
        for index, name in enumerate(names)
    ]
    return {"quantization": {"openvino": {"layers": layers, "output_sqnr_db": 32.5}}}


def packed(names: list[str]) -> dict[str, Any]:
    """What a packed file holds of some layers."""
    layer = {"weights": 36864, "kept": 0.1, "bits": 5, "entropy": 4.1, "coded": 4.2, "coding": "gaps"}
    layer |= {"index_bits": 4, "index_entropy": 3.2, "index_coded": 3.3, "bytes_shared": 4147}
    layers = [
        layer | {"name": f"{name}.weight", "bytes": 3400 + 100 * index} for index, name in enumerate(names)
    ]
    return {"stage": {"bytes": 71_200, "ratio": 39.0, "layers": layers}}


def others() -> dict[str, dict[str, Any]]:
    """Runs of the same model with other recipes: less pruning and int8, and Deep Compression on another machine."""
    names = [layer["name"] for layer in layers()]
    mild, shared = sample(), sample()
    kept = {"parameters": 1_823_000, "bytes": 1_902_114, "macs": 150_200_000, "memory_mb": 31.0}
    mild["rows"][1:] = [
        row("prune", 0.9101, PRUNED, seconds=8.1, **(kept | {"bytes": 7_310_000})),
        row("quantize", 0.9304, INT8, seconds=13.0, **kept, details=quantized(names)),
    ]
    for layer in mild["layers"]:
        layer["after"] = min(layer["before"], layer["after"] + 16)
        layer |= {"macs_before": 9216 * layer["before"], "macs": 9216 * layer["after"]}
    mild["layers"].append({"name": "head", "macs_before": 2560, "macs": 1280})
    steps = mild["recipe"]["steps"]
    steps[1]["prune"]["ratio"] = 0.3
    mild["recipe"]["steps"] = [steps[1], steps[3]]
    dense = {"parameters": 2_777_674, "macs": 219_400_000, "memory_mb": 61.2}
    shared["rows"][1:] = [
        row("pack", 0.9266, FLOAT, seconds=61.0, bytes=285_300, **dense, details=packed(names))
    ]
    shared["rows"][-1]["nonzero"] = 281_000
    shared["recipe"]["steps"] = [{"pack": {"bits": 5}}]
    shared["layers"], shared["decision"] = [], {}
    shared["environment"]["cpu"] = "Another CPU @ 3.00 GHz"
    return {"mild": mild, "shared": shared}


HOSTILE = "</script><script>alert(1)</script>|[x](javascript:y)`\x1b[31m\u202e[bold]{title}{{main}}\n# head"


def hostile() -> dict[str, Any]:
    """The sample with a hostile text wherever a text can stand."""
    content = sample()
    for row in content["rows"]:
        row |= {"runtime": HOSTILE, "precision": HOSTILE, "split": HOSTILE, "size_file": HOSTILE}
        row["step"] += HOSTILE
        row["details"] = {HOSTILE: [HOSTILE]}
        for entry in row["latencies"]:
            entry["runtime"] += HOSTILE
    content["rows"][0]["metric"] = HOSTILE
    content["recipe"]["model"]["name"] = HOSTILE
    content["recipe"][HOSTILE] = HOSTILE
    content["task"] |= {"name": HOSTILE, HOSTILE: HOSTILE}
    content["environment"] |= {"cpu": HOSTILE, HOSTILE: HOSTILE}
    content["artifact"] |= {HOSTILE: HOSTILE}
    content["notes"] = [HOSTILE]
    chosen = {"runtime": HOSTILE, "precision": HOSTILE, "reason": HOSTILE}
    content["decision"] = chosen | {"candidates": [{HOSTILE: HOSTILE}, HOSTILE]}
    for layer in content["layers"]:
        layer["name"] = HOSTILE
    return content
