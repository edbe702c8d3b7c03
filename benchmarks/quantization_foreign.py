"""Float ONNX files that other projects ship, quantized for ONNX Runtime and OpenVINO: do they run, gain, and agree?

    pip install --no-deps rapidocr-onnxruntime==1.4.4 magika==1.0.3 silero-vad==6.2.3
    python benchmarks/quantization_foreign.py            # or --models FOLDER of the unpacked wheels

Text detection, recognition and direction (PP-OCR), file types (magika), voice activity (silero-vad). No code of these
packages is run. Images are pictures of the ImageNet sample with lines of SST-2 printed on them; files are those of
Python's own library; voice is synthetic, as no recordings are at hand. What calibrates is not evaluated. `agreement`
is, of the quantized file against the float one: the same text, direction or file type; of detection, the overlap of
what is text; of voice, the same side of 0.5. Beside it stands ONNX Runtime's own static quantization with the same data,
and for files of low agreement accuracy control, whose bar is met on further calibration data, never on those of the table.
Results go to ``results/quantization_foreign.json``; a file that is on record is not quantized again.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import foreign_data
import numpy as np
from foreign_data import VERSIONS, Feeds, chunks, contents, lines, located, pages, sequences, turned
from records import Records

from lianzhi import deploy, measure, quantize
from lianzhi.errors import LianzhiError

Outputs = list[np.ndarray]
CALIBRATION, EVALUATION, CONTROL = 24, 24, 64
ROUNDS = 7


@dataclass(frozen=True)
class Foreign:
    """A file of a package: its data, and how alike two results are, from 0 to 1."""

    package: str
    file: str
    data: Callable[[int, np.random.Generator], list[Feeds]]
    alike: Callable[[Outputs, Outputs], float]
    evaluation: int = EVALUATION
    max_drop: float | None = None  # of accuracy control, as a run of its own


def same_text(one: Outputs, other: Outputs) -> float:
    """Whether greedy decoding reads the same: the likeliest sign of each place, repetitions and blanks left out."""

    def read(values: np.ndarray) -> list[int]:
        signs = values[0].argmax(-1)
        return [
            int(sign) for index, sign in enumerate(signs) if sign and (not index or sign != signs[index - 1])
        ]

    return float(read(one[0]) == read(other[0]))


def same_class(one: Outputs, other: Outputs) -> float:
    return float((one[0].argmax(-1) == other[0].argmax(-1)).mean())


def overlap(one: Outputs, other: Outputs) -> float:
    """Intersection over union of what is taken for text (above 0.3)."""
    first, second = one[0] > 0.3, other[0] > 0.3
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 1.0


def same_voice(one: Outputs, other: Outputs) -> float:
    return float(((one[0] > 0.5) == (other[0] > 0.5)).mean())


FILES = {
    "rapidocr detection": Foreign("rapidocr_onnxruntime", "ch_PP-OCRv4_det_infer.onnx", pages, overlap),
    "rapidocr recognition": Foreign(
        "rapidocr_onnxruntime", "ch_PP-OCRv4_rec_infer.onnx", lines, same_text, evaluation=96, max_drop=0.005
    ),
    "rapidocr direction": Foreign(
        "rapidocr_onnxruntime", "ch_ppocr_mobile_v2.0_cls_infer.onnx", turned, same_class
    ),
    "magika": Foreign("magika", "model.onnx", contents, same_class),
    "silero-vad": Foreign("silero_vad", "silero_vad.onnx", chunks, same_voice),
    "silero-vad 16k": Foreign("silero_vad", "silero_vad_16k_op15.onnx", chunks, same_voice),
    "silero-vad sequence": Foreign("silero_vad", "silero_vad_16k_sequence.onnx", sequences, same_voice),
}


def run(name: str, target: str, threads: int) -> dict[str, Any]:
    """Quantize one file for one target and compare it with the float file."""
    item = FILES[name]
    source = located(item.package, item.file)
    rng = np.random.default_rng(0)
    batches, fresh = item.data(CALIBRATION, rng), item.data(item.evaluation, rng)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "model.onnx"
        try:
            report = quantize.quantize_onnx(source, batches, target=target, output=output, threads=threads)
        except LianzhiError as error:
            return {
                "version": VERSIONS[item.package],
                "refused": " ".join(str(error).split()).replace(f"{source.parent}/", "")[:300],
            }
        exact = deploy.load(source, runtime="onnxruntime")
        made = deploy.load(output, runtime=target, threads=threads)
        agreement = [item.alike(exact.run(feeds), made.run(feeds)) for feeds in fresh]
        record = {
            "version": VERSIONS[item.package],
            "quantized": report["quantized"],
            "worth_it": report["worth_it"],
            "reason": report.get("reason"),
            "bytes": report["bytes"],
            "timing": report.get("timing") or (report.get("attempts") or [None])[0],
            "attempts": report.get("attempts"),
            "output_sqnr_db": report.get("output_sqnr_db"),
            "agreement": float(np.mean(agreement)),
            "layers": len(report["layers"]),
            "left_float": report["left_float"],
            "lint": report["lint"],
            "seconds": report["seconds"],
        }
        if item.max_drop is not None and report["worth_it"]:
            more = item.data(CONTROL, rng)
            record["controlled"] = controlled(source, more, fresh, item, target, threads, Path(folder))
        if target == "onnxruntime" and report["worth_it"]:
            record["peer"] = peer(source, batches, fresh, item, made, threads, Path(folder))
    return record


def controlled(
    source: Path,
    batches: list[Feeds],
    fresh: list[Feeds],
    item: Foreign,
    target: str,
    threads: int,
    folder: Path,
) -> dict[str, Any]:
    """The same file with accuracy control: what returned to float, and what that gives."""
    output = folder / "controlled.onnx"
    report = quantize.quantize_onnx(
        source, batches, target=target, output=output, threads=threads, max_drop=item.max_drop
    )
    exact = deploy.load(source, runtime="onnxruntime")
    made = deploy.load(output, runtime=target, threads=threads)
    return {
        "max_drop": item.max_drop,
        "quantized": report["quantized"],
        "reason": report.get("reason"),
        "bytes": report["bytes"],
        "timing": report.get("timing"),
        "control": report["control"],
        "agreement": float(np.mean([item.alike(exact.run(feeds), made.run(feeds)) for feeds in fresh])),
        "seconds": report["seconds"],
    }


def peer(
    source: Path,
    batches: list[Feeds],
    fresh: list[Feeds],
    item: Foreign,
    ours: deploy.Session,
    threads: int,
    folder: Path,
) -> dict[str, Any]:
    """ONNX Runtime's static quantization of the same file, prepared as it asks for, with the same data."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(batches)

        def get_next(self) -> Feeds | None:
            return next(self.left, None)

    model, ready, path = onnx.load(source), folder / "ready.onnx", folder / "peer.onnx"
    try:
        if max(entry.version for entry in model.opset_import if not entry.domain) < 13:
            model = onnx.version_converter.convert_version(model, 13)
        onnx.save(model, folder / "raised.onnx")
        quant_pre_process(folder / "raised.onnx", ready, skip_symbolic_shape=True)
        quantization.quantize_static(
            ready, path, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
        )  # fmt: skip
        session = deploy.load(path, runtime="onnxruntime", threads=threads)
        exact = deploy.load(source, runtime="onnxruntime")
        agreement = float(np.mean([item.alike(exact.run(feeds), session.run(feeds)) for feeds in fresh]))
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    feeds = batches[0]
    turns = measure.both_in_turns(lambda: session.run(feeds), lambda: ours.run(feeds), ROUNDS)
    return {"agreement": agreement, "bytes": path.stat().st_size, "our_time_over_its": turns.ratio}


def table(records: Records) -> str:
    """The records for people."""
    rows = [
        f"{'file':<22}{'target':<13}{'quantized':<21}{'size':>7}{'time':>7}{'agrees':>8}{'peer time':>11}{'peer':>7}"
    ]
    for key, record in records.items():
        name, target = key.split(" on ")
        if "refused" in record:
            rows.append(f"{name:<22}{target:<13}refused: {record['refused'][:80]}")
            continue
        size = record["bytes"]["output"] / record["bytes"]["float"]
        time = (record["timing"] or {}).get("ratio")
        other = record.get("peer", {})
        rows.append(
            f"{name:<22}{target:<13}{record['quantized']:<21}{size:>6.2f}x"
            + (f"{time:>6.2f}x" if time else f"{'-':>7}")
            + f"{record['agreement']:>8.3f}"
            + (
                f"{1 / other['our_time_over_its']:>10.2f}x{other['agreement']:>7.3f}"
                if "agreement" in other
                else ""
            )
        )
        if "controlled" in record:
            rows.append(_controlled_row(record["controlled"]))
    return "\n".join(rows)


def _controlled_row(record: dict[str, Any]) -> str:
    """A file's second line: with accuracy control."""
    size = record["bytes"]["output"] / record["bytes"]["float"]
    ratio = record["timing"]["ratio"] if record["timing"] else None
    name = f"  max_drop {record['max_drop']:g}: {len(record['control']['returned'])} layers in float"
    return (
        f"{name:<35}{record['quantized']:<21}{size:>6.2f}x"
        + (f"{ratio:>6.2f}x" if ratio else f"{'-':>7}")
        + f"{record['agreement']:>8.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", type=Path, help="folder of the unpacked packages (default: the installed ones)"
    )
    parser.add_argument("--only", help="part of a file's name")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    foreign_data.MODELS = arguments.models
    warnings.simplefilter("ignore")
    records = Records("quantization_foreign")
    for name in FILES:
        for target in ("onnxruntime", "openvino"):
            key = f"{name} on {target}"
            if key in records or (arguments.only and arguments.only not in key):
                continue
            record = run(name, target, arguments.threads)
            records.add(key, {**record, "threads": arguments.threads})
            print(key, record.get("quantized", "refused"), flush=True)
    print(table(records))


if __name__ == "__main__":
    main()
