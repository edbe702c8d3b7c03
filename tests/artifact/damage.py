"""Ways to damage an artifact: one value, one byte, or many at random."""

from __future__ import annotations

import json
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from lianzhi import artifact
from lianzhi.artifact.layout import own_digest
from lianzhi.artifact.reading import digest
from lianzhi.errors import ArtifactError


def change(folder: Path, edit: Any) -> None:
    """Edit the architecture, as somebody would who knows the format: both digests are made anew."""
    path = folder / "architecture.json"
    data = json.loads(path.read_text())
    weights = folder / "model.safetensors"
    data["weights"].update(bytes=weights.stat().st_size, sha256=digest(weights))
    edit(data)
    path.write_text(json.dumps({**data, "digest": own_digest(data)}))


def weights(folder: Path, edit: Any) -> None:
    """Change the weights file's header, and sign it."""
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    change(folder, lambda data: None)


def mutated(source: random.Random, whole: Path, folder: Path) -> str:
    """Damage one member of a copy; say how."""
    member = source.choice(
        [
            "architecture.json",
            "architecture.json",
            "values",
            "values",
            "values",
            "model.safetensors",
            "header",
        ]
    )
    if member == "values":
        change(folder, lambda data: _mutate_values(source, data))
        return member
    if member == "header":
        weights(folder, lambda header: _mutate_values(source, header))
        return member
    path = folder / member
    raw = bytearray(path.read_bytes())
    for _ in range(source.choice([1, 1, 1, 3, 20])):
        at = source.randrange(len(raw))
        how = source.choice(["flip", "byte", "cut", "insert", "repeat", "swap"])
        if how == "flip":
            raw[at] ^= 1 << source.randrange(8)
        elif how == "byte":
            raw[at] = source.choice(b'0123456789-"{}[],:.eE\\\0\xff')
        elif how == "cut":
            del raw[at : at + source.choice([1, 8, 100, len(raw)])]
        elif how == "insert":
            raw[at:at] = bytes(source.randrange(256) for _ in range(source.choice([1, 8, 100])))
        elif how == "repeat":
            raw[at:at] = raw[max(0, at - 50) : at]
        else:
            other = source.randrange(len(raw))
            raw[at], raw[other] = raw[other], raw[at]
        if not raw:
            break
    path.write_bytes(raw)
    if member == "model.safetensors" and source.random() < 0.7:
        change(folder, lambda data: None)
    return member


STRANGE = [
    *(0, 1, -1, 2, 7, 255, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63), 0.5, True, None),
    *("", "x", "relu", "__class__", [], {}, [0], [[]], {"node": "x"}, {"node": "relu"}),
    *({"float": "nan"}, {"float": 1e308}, {"dtype": "bool"}, {"tuple": []}, [1 << 40] * 4),
]


def _mutate_values(source: random.Random, data: Any) -> None:
    """Replace, remove, double or exchange some values deep inside."""
    for _ in range(source.choice([1, 1, 1, 2, 5])):
        places: list[tuple[Any, Any]] = []

        def collect(value: Any, places: list[tuple[Any, Any]] = places) -> None:
            for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
                places.append((value, key))
                if isinstance(item, (dict, list)):
                    collect(item)

        collect(data)
        holder, key = source.choice(places)
        other_holder, other_key = source.choice(places)
        how = source.choice(["strange", "strange", "strange", "remove", "copy", "copy", "near", "near"])
        if how == "strange":
            holder[key] = source.choice(STRANGE)
        elif how == "remove":
            del holder[key]
        elif how == "near" and type(holder[key]) is int:
            holder[key] += source.choice([-2, -1, 1, 2])
        else:
            holder[key] = json.loads(json.dumps(other_holder[other_key]))


def fuzz(folders: list[Path], target: Path, seed: int, rounds: int) -> dict[str, int]:
    """Damage and load, many times. Only `ArtifactError` may come out, or a module that runs or says why not."""
    source, counts = random.Random(seed), {"refused": 0, "loaded": 0, "ran": 0}
    for index in range(rounds):
        whole = source.choice(folders)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(whole, target)
        how = mutated(source, whole, target)
        try:
            module = artifact.load(target)
        except ArtifactError as error:
            counts["refused"] += 1
            if not str(error).startswith(str(target)):
                pytest.fail(f"round {index}, {how}: the message does not name the folder: {error}")
            continue
        counts["loaded"] += 1
        try:
            with torch.no_grad():
                module(artifact.example_inputs(target))
            counts["ran"] += 1
        except (RuntimeError, IndexError, TypeError, ValueError, ZeroDivisionError, NotImplementedError):
            pass
    return counts
