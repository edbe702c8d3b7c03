"""Calibration data for an ONNX file made elsewhere: arrays by input name, image files, or a task's own cut."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lianzhi import files
from lianzhi.deploy import Port
from lianzhi.errors import DataError, RecipeError
from lianzhi.jobs.predict import read_image
from lianzhi.tasks import Preprocess, Task
from lianzhi.tasks.readers.folder import ENDINGS

Arrays = dict[str, np.ndarray]
COLOURS = (1, 3, 4)


@dataclass(frozen=True)
class DataOptions:
    """How data are read. `shape`: one sample, where the file leaves it open; `mean`, `std`: of images, in 0…1."""

    samples: int = 256
    batch: int | None = None
    shape: tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Calibration:
    """Batches by input name, what they were read from, and how images became inputs."""

    batches: list[Arrays]
    found: str
    preprocess: Preprocess | None = None


def from_task(task: Task, ports: tuple[Port, ...], options: DataOptions) -> Calibration:
    """The calibration cut of a task, or its training part."""
    split = "calibration" if task.has("calibration") else "train"
    batches, count = [], 0
    for batch in task.batches(split, _batch_size(ports, options) or 16):
        inputs = batch.inputs
        values = inputs if isinstance(inputs, dict) else {ports[0].name: inputs}
        batches.append({name: np.asarray(value) for name, value in values.items()})
        count += len(next(iter(batches[-1].values())))
        if count >= options.samples:
            break
    return Calibration(batches, f"{count} samples of {task.name}'s {split} part")


def from_path(path: Path, ports: tuple[Port, ...], options: DataOptions) -> Calibration:
    """Data in a file or a folder: ``.npz`` and ``.npy`` with arrays, or images in any subfolders.

    Raises:
        DataError: there are none, they cannot be read, or the model does not take what they hold.
    """
    if not path.exists():
        raise DataError(f"{path}: no such folder or file of calibration data")
    found = _listed(path) if path.is_dir() else [path]
    arrays = [file for file in found if file.suffix.lower() in (".npz", ".npy")]
    images = [file for file in found if file.suffix.lower() in ENDINGS]
    if arrays and images:
        raise DataError(f"{path}: holds arrays and images; give a folder of one kind")
    if arrays:
        return _of_arrays(path, arrays, ports, options)
    if images:
        return _of_images(path, images, ports, options)
    raise DataError(
        f"{path}: holds no calibration data; give .npz files of arrays by input name "
        f"({', '.join(port.name for port in ports)}), .npy files, or images ({', '.join(sorted(ENDINGS))})"
    )


def _of_arrays(path: Path, found: list[Path], ports: tuple[Port, ...], options: DataOptions) -> Calibration:
    names = [port.name for port in ports]
    if all(file.suffix.lower() == ".npy" for file in found) and {file.stem for file in found} >= set(names):
        groups = [{file.stem: _load(file) for file in found if file.stem in names}]
    else:
        groups = [_named(file, _load(file), names) for file in _spread(found, options.samples)]
    batches: list[Arrays] = []
    for group in groups:
        batches += _cut(group, ports, options)
    kept: list[Arrays] = []
    count = 0
    for batch in batches:
        if count >= options.samples:
            break
        kept.append(batch)
        count += _rows(batch)
    return Calibration(kept, f"{len(kept)} batches of arrays in {path}")


def _named(file: Path, content: Any, names: list[str]) -> Arrays:
    """Arrays by input name; the one array of a file is that of the one input."""
    if isinstance(content, np.ndarray):
        content = {names[0] if len(names) == 1 else file.stem: content}
    if len(content) == 1 and len(names) == 1:
        return {names[0]: next(iter(content.values()))}
    missing = [name for name in names if name not in content]
    if missing:
        raise DataError(
            f"{file}: holds {', '.join(sorted(content)) or 'nothing'}, and the model takes {', '.join(names)}; "
            f"name the arrays after the inputs"
        )
    return {name: content[name] for name in names}


def _cut(group: Arrays, ports: tuple[Port, ...], options: DataOptions) -> Iterator[Arrays]:
    """Batches of a set of arrays: cut along the first dimension where all have the same one and it may be cut."""
    size = _batch_size(ports, options)
    lengths = {value.shape[0] if value.ndim else -1 for value in group.values()}
    firsts = {port.shape[0] if port.shape else -1 for port in ports}
    if size is None or len(lengths) != 1 or len(firsts) != 1:
        yield group
        return
    total = next(iter(lengths))
    if not total:
        yield group
    fixed = next(iter(firsts)) is not None
    for start in range(0, total - (size - 1 if fixed and total >= size else 0), size):
        yield {name: value[start : start + size] for name, value in group.items()}


def _of_images(path: Path, found: list[Path], ports: tuple[Port, ...], options: DataOptions) -> Calibration:
    preprocess, channels_last = _preprocess(path, ports, options)
    chosen = _spread(found, options.samples)
    size = _batch_size(ports, options) or 8
    batches: list[Arrays] = []
    for start in range(0, len(chosen), size):
        part = chosen[start : start + size]
        if len(part) < size and ports[0].shape and ports[0].shape[0] is not None and batches:
            break
        values = np.concatenate([preprocess(read_image(str(file))) for file in part])
        batches.append({ports[0].name: values.transpose(0, 2, 3, 1) if channels_last else values})
    return Calibration(batches, f"{len(chosen)} of {len(found)} images in {path}", preprocess)


def _preprocess(path: Path, ports: tuple[Port, ...], options: DataOptions) -> tuple[Preprocess, bool]:
    """How an image becomes the model's input, and whether the channels come last."""
    port = ports[0]
    if len(ports) != 1 or len(port.shape) != 4 or port.dtype.kind != "f":
        takes = ", ".join(f"{item.name} {item.dtype}{list(item.shape)}" for item in ports)
        raise DataError(
            f"{path}: holds images, and the model takes {takes}; give .npz files of arrays by those names"
        )
    shape: list[int | None] = list(port.shape[1:])
    if options.shape is not None:
        fits = len(options.shape) == 3 and all(
            size in (None, given) for size, given in zip(shape, options.shape, strict=True)
        )
        if not fits:
            raise RecipeError(
                f"--input {list(options.shape)}: the model takes {shape} (null is open) a sample"
            )
        shape = list(options.shape)
    if None in shape:
        raise RecipeError(
            f"the model leaves the size of its input '{port.name}' open ({json.dumps(shape)}); "
            f"add --input, such as --input 3x224x224"
        )
    sizes = [size for size in shape if size is not None]
    last = sizes[0] not in COLOURS and sizes[2] in COLOURS
    height, width = sizes[:2] if last else sizes[1:]
    channels = sizes[2] if last else sizes[0]
    mean, std = options.mean or (0.0,) * channels, options.std or (1.0,) * channels
    return Preprocess(size=(height, width), channels=channels, mean=mean, std=std), last


def preprocess_beside(source: Path) -> Preprocess | None:
    """The preprocessing of images that lies beside a model, if there is one."""
    file = source.parent / "preprocess.json"
    if not file.is_file():
        return None
    values = files.read_json(file)
    return None if isinstance(values, dict) and values.get("kind") == "text" else Preprocess.from_dict(values)


def _batch_size(ports: tuple[Port, ...], options: DataOptions) -> int | None:
    """Samples a batch: what the file fixes, else what was asked for; None where inputs have no common batch."""
    if any(not port.shape for port in ports):
        return None
    fixed = {port.shape[0] for port in ports if port.shape[0] is not None}
    if len(fixed) > 1:
        return None
    return fixed.pop() if fixed else options.batch or 8


def _rows(batch: Arrays) -> int:
    return max((len(value) for value in batch.values() if value.ndim), default=1)


def _spread(found: list[Path], count: int) -> list[Path]:
    """At most `count` of them, evenly spaced, so that all subfolders are there."""
    if len(found) <= count:
        return found
    return [found[index * len(found) // count] for index in range(count)]


def _listed(folder: Path) -> list[Path]:
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in sorted(names) if not name.startswith(".")]
    return found


def _load(file: Path) -> Any:
    """An array, or a dict of them; pickled objects are refused."""
    try:
        with file.open("rb") as stream:
            content = np.load(stream, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return content
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{file}: not a readable NumPy file ({error}); pickled objects are refused") from None
