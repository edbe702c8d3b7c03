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
import importlib.util
import io
import os
import sysconfig
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from records import Records

from lianzhi import deploy, measure, quantize
from lianzhi.errors import LianzhiError

Feeds = dict[str, np.ndarray]
Outputs = list[np.ndarray]
DATA = Path(os.environ.get("LIANZHI_DATA", "../shared/data"))
VERSIONS = {"rapidocr_onnxruntime": "1.4.4", "magika": "1.0.3", "silero_vad": "6.2.3"}
CALIBRATION, EVALUATION, CONTROL = 24, 24, 64
BEGIN, END, PADDING = 1024, 1024, 256  # of a file's bytes, as magika's configuration says
CHUNK, CONTEXT, RATE = 512, 64, 16000  # of sound
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


def pictures(file: Path) -> Iterator[Image.Image]:
    """The images of the ImageNet sample, over and over."""
    from pyarrow import parquet

    rows = parquet.read_table(file).to_pylist()
    while True:
        for row in rows:
            yield Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")


def sentences() -> list[str]:
    """Lines of SST-2's training part, short enough for a line of print."""
    folder = DATA / "glue" / "SST-2"
    file = next(item for item in sorted(folder.rglob("train*")) if item.suffix in (".tsv", ".parquet"))
    if file.suffix == ".parquet":
        from pyarrow import parquet

        texts = [row["sentence"] for row in parquet.read_table(file).slice(0, 3000).to_pylist()]
    else:
        texts = [line.split("\t")[0] for line in file.read_text("utf-8").splitlines()[1:3000]]
    return [text.strip() for text in texts if 4 <= len(text.strip()) <= 28]


def page(size: tuple[int, int], lines: int, rng: np.random.Generator) -> Image.Image:
    """A part of a picture with some lines printed on it."""
    width, height = size
    image = next(PICTURES).resize((width, height))
    draw = ImageDraw.Draw(image)
    for line in range(lines):
        font = ImageFont.load_default(int(rng.integers(14, 30)) if lines > 1 else int(height * 0.6))
        text = TEXTS[int(rng.integers(len(TEXTS)))]
        top = line * height // lines + 4
        box = draw.textbbox((6, top), text, font=font)
        draw.rectangle(
            (box[0] - 4, box[1] - 3, box[2] + 4, box[3] + 3), fill=tuple(rng.integers(180, 256, 3))
        )
        draw.text((6, top), text, font=font, fill=tuple(int(value) for value in rng.integers(0, 90, 3)))
    return image


def scaled(image: Image.Image) -> np.ndarray:
    """(1, 3, height, width), blue first, from -1 to 1, as PP-OCR takes it."""
    pixels = np.asarray(image, np.float32)[:, :, ::-1].transpose(2, 0, 1)[None]
    return np.ascontiguousarray(pixels / 127.5 - 1)


def pages(count: int, rng: np.random.Generator) -> list[Feeds]:
    """Whole pages of several sizes: the file leaves height and width open."""
    sizes = [(320, 320), (352, 256), (256, 384)]
    return [{"x": scaled(page(sizes[index % 3], 5, rng))} for index in range(count)]


def lines(count: int, rng: np.random.Generator) -> list[Feeds]:
    """Single lines, 48 pixels high."""
    return [{"x": scaled(page((320, 48), 1, rng))} for _ in range(count)]


def turned(count: int, rng: np.random.Generator) -> list[Feeds]:
    """Single lines, every other one upside down."""
    made = [page((192, 48), 1, rng) for _ in range(count)]
    return [{"x": scaled(image.rotate(180 * (index % 2)))} for index, image in enumerate(made)]


def contents(count: int, rng: np.random.Generator) -> list[Feeds]:
    """First and last bytes of files of as many kinds as there are; eight files a batch."""
    found: dict[str, list[Path]] = {}
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*")):
        if file.is_file() and file.stat().st_size > 64:
            found.setdefault(file.suffix.lower(), []).append(file)
    kinds = sorted(found)
    batches = []
    for _ in range(count):
        chosen = [found[kinds[int(rng.integers(len(kinds)))]] for _ in range(8)]
        batches.append({"bytes": np.stack([ends(files[int(rng.integers(len(files)))]) for files in chosen])})
    return batches


def ends(file: Path) -> np.ndarray:
    """The bytes of a file's two ends, without white space around them, filled up with 256."""
    data = file.read_bytes()
    begin, end = data[:4096].lstrip()[:BEGIN], data[-4096:].rstrip()[-END:]
    values = np.full(BEGIN + END, PADDING, np.int32)
    values[: len(begin)] = np.frombuffer(begin, np.uint8)
    values[BEGIN + END - len(end) :] = np.frombuffer(end, np.uint8)
    return values


def sound(count: int, rng: np.random.Generator) -> np.ndarray:
    """Noise, with vowel-like tones in every other quarter of a second."""
    time = np.arange(count) / RATE
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * time + rng.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    voice = sum(np.sin(order * phase) / order for order in range(1, 25))
    return (0.02 * rng.normal(size=count) + 0.2 * voice * ((time * 4).astype(int) % 2)).astype(np.float32)


def chunks(count: int, rng: np.random.Generator, *, rate: bool = True) -> list[Feeds]:
    """Neighbouring pieces of one recording, with the state that the float file had reached."""
    name = "silero_vad.onnx" if rate else "silero_vad_16k_op15.onnx"
    session = deploy.load(located(MODELS, "silero_vad", name), runtime="onnxruntime", threads=1)
    wave, state, made = sound(CONTEXT + count * CHUNK, rng), np.zeros((2, 1, 128), np.float32), []
    for index in range(count):
        piece = wave[None, index * CHUNK : index * CHUNK + CONTEXT + CHUNK]
        made.append({"input": np.ascontiguousarray(piece), "state": state, "sr": np.array(RATE, np.int64)})
        state = session.run(made[-1])[1]
    return made


def sequences(count: int, rng: np.random.Generator) -> list[Feeds]:
    """Whole recordings, cut into pieces, from an empty state."""
    empty = np.zeros((1, 1, 128), np.float32)
    made = []
    for _ in range(count):
        wave = sound(CONTEXT + 32 * CHUNK, rng)
        pieces = [wave[index * CHUNK : index * CHUNK + CONTEXT + CHUNK] for index in range(32)]
        made.append({"input": np.stack(pieces), "h": empty, "c": empty})
    return made


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


def located(models: Path | None, package: str, name: str) -> Path:
    """A file of an installed or unpacked package, of which no code is run."""
    folder = None if models is None else models / package
    if folder is None:
        spec = importlib.util.find_spec(package)
        folder = Path(next(iter(spec.submodule_search_locations or []))) if spec else None
    if folder is None or not folder.is_dir():
        wanted = " ".join(f"{key.replace('_', '-')}=={value}" for key, value in VERSIONS.items())
        raise SystemExit(f"pip install --no-deps {wanted}, or give --models FOLDER")
    return next(folder.rglob(name))


def run(name: str, target: str, threads: int) -> dict[str, Any]:
    """Quantize one file for one target and compare it with the float file."""
    item = FILES[name]
    source = located(MODELS, item.package, item.file)
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
    global MODELS  # noqa: PLW0603
    MODELS = arguments.models
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


MODELS: Path | None = None
PICTURES = pictures(DATA / "imagenet-sample" / "even.parquet")
TEXTS = sentences()

if __name__ == "__main__":
    main()
