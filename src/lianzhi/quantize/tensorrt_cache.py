"""The calibration cache of TensorRT up to 10.16: a line that names version and calibrator, then a line a tensor.

``name: <hex>``, where the hex is the big-endian float32 of amax / 127. Names may hold colons, so a line is split
from the right. TensorRT 11 has no implicit quantization and takes no cache: give it a Q/DQ file.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lianzhi import files
from lianzhi.deploy.inspection import read_onnx
from lianzhi.errors import DataError
from lianzhi.quantize.storage import INT8

CALIBRATORS = ("EntropyCalibration2", "MinMaxCalibration")
LAST = (10, 16)
_HEADER = re.compile(r"^TRT-(\d+)-(\w+)$")
_SCALE = re.compile(r"^[0-9a-fA-F]{1,8}$")


def read_tensorrt_cache(path: str | os.PathLike[str]) -> dict[str, float]:
    """The largest magnitude of each tensor, from a calibration cache.

    ```python
    amax = quantize.read_tensorrt_cache("calibration.cache")     # {"input": 2.64, "relu_1": 0.996, …}
    ```

    Caches of entropy calibration and of min-max calibration are read. Raises `DataError` that names the line,
    for a file that is truncated, damaged, of another calibrator or of a version that has no cache.
    """
    try:
        text = Path(path).read_bytes().decode()
    except OSError as error:
        raise DataError(f"{path}: the calibration cache cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a calibration cache of TensorRT, but binary data") from None
    lines = text.split("\n")
    _check_header(path, lines[0].rstrip("\r"))
    if lines[-1] != "":
        raise DataError(
            f"{path}: the calibration cache is truncated: its last line ('{lines[-1][:60]}') does not end; "
            f"calibrate again"
        )
    found: dict[str, float] = {}
    for number, line in enumerate(lines[1:-1], start=2):
        if not line.strip():
            continue
        name, colon, scale = line.rstrip("\r").rpartition(":")
        if not colon or not name or not _SCALE.match(scale.strip()):
            raise DataError(f"{path}, line {number}: '{line[:60]}' is not 'name: hex'; calibrate again")
        if name in found:
            raise DataError(f"{path}, line {number}: '{name}' is there twice; calibrate again")
        found[name] = _amax(path, number, name, scale.strip())
    if not found:
        raise DataError(f"{path}: the calibration cache names no tensor; calibrate again")
    return found


def file_amax(path: str | os.PathLike[str]) -> dict[str, float]:
    """The largest magnitude of each value that an ONNX file rounds to symmetric int8, by its name there.

    ```python
    quantize.write_tensorrt_cache("calibration.cache", quantize.file_amax("model.onnx"))
    ```
    """
    from onnx import numpy_helper

    graph = read_onnx(path).graph
    stored = {item.name: item for item in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[1] in stored and node.input[0] not in stored:
            scale = numpy_helper.to_array(stored[node.input[1]])
            zero = stored.get(node.input[2]) if len(node.input) > 2 else None
            if scale.size == 1 and zero is not None and zero.data_type == INT8:
                found[node.input[0]] = float(scale.reshape(())) * 127
    return found


def _check_header(path: str | os.PathLike[str], line: str) -> None:
    header = _HEADER.match(line)
    if header is None:
        raise DataError(
            f"{path}: its first line is '{line[:60]}', not 'TRT-<version>-EntropyCalibration2'; "
            f"this is no calibration cache of TensorRT"
        )
    version, calibrator = header.groups()
    if calibrator not in CALIBRATORS:
        raise DataError(
            f"{path}: a cache of the calibrator '{calibrator}'; those of {' and '.join(CALIBRATORS)} are read"
        )
    _check_version(f"{path}", *_parts(version))


def _parts(number: str) -> tuple[int, int, int]:
    """Major, minor and patch of a version as a number: two digits each from 10 on, one each below.

    >>> _parts("100300"), _parts("8501")
    ((10, 3, 0), (8, 5, 1))
    """
    value = int(number)
    if value >= 100_000:
        return value // 10_000, value // 100 % 100, value % 100
    return value // 1000, value // 100 % 10, value % 100


def _number(version: str) -> int:
    """A version as the number in a header.

    >>> _number("10.3.0"), _number("8.5.1")
    (100300, 8501)
    """
    try:
        major, minor, patch = ([*(int(part) for part in version.split(".")), 0, 0])[:3]
    except (ValueError, AttributeError):
        raise DataError(f"version '{version}': write it as 10.3.0") from None
    _check_version(f"version '{version}'", major, minor, patch)
    return major * (10_000 if major >= 10 else 1000) + minor * 100 + patch


def _check_version(where: str, major: int, minor: int, patch: int) -> None:
    if not 5 <= major <= LAST[0] or (major, minor) > LAST or min(minor, patch) < 0 or max(minor, patch) > 99:
        raise DataError(
            f"{where}: TensorRT {major}.{minor}.{patch} has no calibration cache: it takes one from 5 to "
            f"{LAST[0]}.{LAST[1]}, and a file with Q/DQ nodes from then on"
        )


def _amax(path: str | os.PathLike[str], number: int, name: str, scale: str) -> float:
    value: float = struct.unpack(">f", bytes.fromhex(scale.rjust(8, "0")))[0]
    if not (np.isfinite(value) and value >= 0):
        raise DataError(f"{path}, line {number}: the scale of '{name}' is {value}; calibrate again")
    return value * 127


def write_tensorrt_cache(
    path: str | os.PathLike[str], amax: Mapping[str, float], version: str = "10.3.0"
) -> Path:
    """Write a calibration cache for TensorRT up to 10.16, and return its path.

    ```python
    quantize.write_tensorrt_cache("calibration.cache", quantize.file_amax("model.onnx"), version="8.5.1")
    ```

    `amax` is the largest magnitude of each tensor by the name that it has in the ONNX file. Raises `DataError`
    for a name that no line can hold, or a value that is not a positive number.
    """
    lines = [f"TRT-{_number(version)}-{CALIBRATORS[0]}"]
    if not amax:
        raise DataError("there is no tensor to write; give {name: amax}")
    for name, value in amax.items():
        if not isinstance(name, str) or not name or "\n" in name or "\r" in name:
            raise DataError(f"a calibration cache cannot hold the name {name!r}; rename the tensor")
        try:
            with np.errstate(over="ignore"):
                scale = np.float32(float(value) / 127)
        except (TypeError, ValueError):
            scale = np.float32("nan")
        if not (np.isfinite(scale) and scale > 0):
            raise DataError(f"the largest magnitude of '{name}' is {value!r:.60}; give a positive number")
        lines.append(f"{name}: {struct.pack('>f', scale).hex()}")
    return files.write_text(Path(path), "\n".join(lines) + "\n")
