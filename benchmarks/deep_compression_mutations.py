"""What happens to packed files that were damaged, or made to harm, in 20,000 ways?

    python benchmarks/deep_compression_mutations.py [--cases 20000] [--seed 0]

Each case changes a file of many codings: bits flipped, bytes overwritten, cut out, doubled, cut off or appended, sections
exchanged, numbers of the header changed; in half of the cases checksums are made right again, so that what lies behind
them has to hold too. One in twenty is a small file whose header or architecture becomes up to a million values. A file must be refused as `ArtifactError`, or read as tensors of the types and shapes that its header
says: the original ones wherever no checksum was made anew. Each case is timed, and its memory is measured.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import struct
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from records import Records

import lianzhi as lz
from lianzhi.codebook import container
from lianzhi.codebook.tensors import to_bits
from lianzhi.errors import ArtifactError

MOST_SECONDS, MOST_BYTES = 0.1, 256 << 20
NUMBERS = [0, 1, 2, 5, 31, 32, 127, 128, 255, 256, 65535, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1, -1]


def state_dict() -> dict[str, torch.Tensor]:
    """Tensors of every coding, of many types."""
    torch.manual_seed(0)
    sparse = torch.where(
        torch.rand(300, 200) < 0.08, torch.randint(1, 30, (300, 200)) / 8, torch.zeros(300, 200)
    )
    half = torch.where(torch.rand(80, 90) < 0.5, torch.randint(1, 200, (80, 90)) / 8, torch.zeros(80, 90))
    return {
        "gaps": sparse,
        "mask": half,
        "codes": torch.randn(60, 60).mul(4).round(),
        "raw": torch.randn(40, 10),
        "half": torch.randn(300).half().float(),
        "constant": torch.ones(5000),
        "int8": torch.randn(2000).mul(9).char(),
        "bool": torch.rand(500) < 0.2,
        "double": torch.randn(20, dtype=torch.float64),
        "steps": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "tied": sparse,
    }


class File:
    """A packed file, taken apart: the header, and each section without its checksum."""

    def __init__(self, data: bytes) -> None:
        stored = container.START.unpack(data[: container.START.size])[2]
        at = container.START.size + 4
        self.header: Any = json.loads(zlib.decompress(data[at : at + stored]))
        self.sections, at = [], at + stored
        for entry in self.entries():
            self.sections.append(bytearray(data[at + 4 : at + 4 + entry["bytes"]]))
            at += 4 + entry["bytes"]

    def entries(self) -> list[dict[str, Any]]:
        """The tensors that have sections."""
        return [entry for entry in self.header["tensors"] if "same" not in entry]

    def build(self) -> bytes:
        """The file again, with right lengths of what was not changed on purpose, and right checksums."""
        body = b""
        sections = iter(self.sections)
        for index, entry in enumerate(self.header["tensors"]):
            if isinstance(entry, dict) and "same" not in entry:
                data = bytes(next(sections, b""))
                body += struct.pack("<I", container._checksum(index, entry, data)) + data
        text = json.dumps(self.header, separators=(",", ":")).encode()
        deflated = zlib.compress(text)
        start = container.START.pack(container.MAGIC, container.VERSION, len(deflated), len(text))
        return start + struct.pack("<I", zlib.crc32(deflated, zlib.crc32(start[8:]))) + deflated + body


def damaged(data: bytes, draw: random.Random) -> tuple[str, bytes]:
    """A file with wrong checksums."""
    kind = draw.choice(["flip", "overwrite", "cut", "double", "truncate", "append"])
    at, length = draw.randrange(len(data)), draw.randint(1, 64)
    if kind == "flip":
        changed = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        return kind, bytes(changed)
    if kind == "overwrite":
        return kind, data[:at] + draw.randbytes(length) + data[at + length :]
    if kind == "cut":
        return kind, data[:at] + data[at + length :]
    if kind == "double":
        return kind, data[: at + length] + data[at:]
    return kind, data[:at] if kind == "truncate" else data + draw.randbytes(length)


def forged(data: bytes, draw: random.Random) -> tuple[str, bytes]:
    """A file with right checksums."""
    file = File(data)
    kind = draw.choice(["entry", "shape", "beginning", "section", "swap", "drop"])
    entries = file.entries()
    index = draw.randrange(len(entries))
    entry, section = entries[index], file.sections[index]
    if kind == "entry":
        key = draw.choice(sorted(entry))
        pool = [*NUMBERS, None, True, "", "gaps", "mask", "codes", "raw", "F64", "BOOL", "I8", [], {}, 1.5]
        entry[key] = draw.choice(pool)
    elif kind == "shape":
        entry["shape"] = [draw.choice(NUMBERS) for _ in range(draw.randint(0, 4))]
    elif kind in ("beginning", "section") and section:
        for _ in range(draw.randint(1, 3)):
            most = min(40, len(section)) if kind == "beginning" else len(section)
            section[draw.randrange(most)] = draw.randrange(256)
    elif kind == "swap":
        other = draw.randrange(len(entries))
        file.sections[index], file.sections[other] = file.sections[other], file.sections[index]
        entry["bytes"], entries[other]["bytes"] = entries[other]["bytes"], entry["bytes"]
    elif kind == "drop":
        file.header["tensors"].pop(draw.randrange(len(file.header["tensors"])))
    return kind, file.build()


def swollen(draw: random.Random) -> tuple[str, bytes]:
    """A small file with right checksums, whose header or architecture becomes many values."""
    unit = draw.choice([b"[],", b'{"a":1},', b"1,", b'"",', b'"text",'])
    values = b"[" + unit * draw.choice([100, 10_000, 1_000_000]) + b"1]"
    section = container.CHECK.pack(len(values)) + zlib.compress(values)
    place = draw.choice(["header", "architecture"])
    header = b'{"tensors":%s,"architecture":%d}' % (
        (values, 0) if place == "header" else (b"[]", len(section))
    )
    deflated = zlib.compress(header)
    start = container.START.pack(container.MAGIC, container.VERSION, len(deflated), len(header))
    check = struct.pack("<I", zlib.crc32(deflated, zlib.crc32(start[8:])))
    body = b"".join(container._section(0, len(section), section)) if place == "architecture" else b""
    return f"swollen {place}", start + check + deflated + body


def check(path: Path, original: dict[str, torch.Tensor], exact: bool) -> str:
    """What came of a file; anything but a refusal or right tensors raises."""
    try:
        found = lz.codebook.unpack(path)
        if not found:
            lz.load(path)
    except ArtifactError as error:
        return "refused" if str(path) in str(error) else f"refused without its name: {error}"
    if not exact:
        assert all(tensor.numel() == math.prod(tensor.shape) for tensor in found.values())
        return "read"
    assert found.keys() == original.keys()
    for name, tensor in original.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert (to_bits(found[name], name) == to_bits(tensor, name)).all()
    return "original"


def resident() -> tuple[int, int]:
    """Memory of this process: now, and the most since it was last asked to forget."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines["VmRSS"].split()[0]), 1024 * int(lines["VmHWM"].split()[0])


def measured(work: Callable[[], Any]) -> tuple[float, int, Any]:
    """Seconds of the processor, bytes of memory, and what came out."""
    Path("/proc/self/clear_refs").write_text("5")
    before, start = resident()[0], time.thread_time()
    result = work()
    return time.thread_time() - start, resident()[1] - before, result


def run(cases: int, seed: int) -> dict[str, Any]:
    """All cases; the slowest and the largest of them."""
    draw = random.Random(seed)
    outcomes: Counter[str] = Counter()
    slowest, largest, over = 0.0, 0, 0
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "model.lzc"
        state = state_dict()
        lz.codebook.pack(state, path)
        data = path.read_bytes()
        assert File(data).build()[-1000:] == data[-1000:]
        check(path, state, exact=True)
        assert measured(lambda: bytearray(64 << 20))[1] > 60 << 20  # what the case takes is seen
        for case in range(cases):
            exact = case % 2 == 0
            if case % 20 == 19:
                kind, changed = swollen(draw)
            else:
                kind, changed = (damaged if exact else forged)(data, draw)
            path.write_bytes(changed)
            seconds, more, outcome = measured(lambda: check(path, state, exact))  # noqa: B023
            slowest, largest = max(slowest, seconds), max(largest, more)
            over += seconds > MOST_SECONDS or more > MOST_BYTES
            outcomes[f"{kind}: {outcome}"] += 1
    return {
        "cases": cases,
        "file_bytes": len(data),
        "outcomes": dict(sorted(outcomes.items())),
        "slowest_seconds": slowest,
        "largest_bytes": largest,
        "over_limits": over,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = run(given.cases, given.seed)
    Records("deep_compression_mutations").add(f"{given.cases} cases, seed {given.seed}", found)
    for outcome, count in found["outcomes"].items():
        print(f"{outcome:<24}{count:>8,}")
    print(
        f"slowest {1000 * found['slowest_seconds']:.0f} ms of the processor, largest {found['largest_bytes'] / 1e6:.0f} MB, "
        f"{found['over_limits']} over {1000 * MOST_SECONDS:.0f} ms or {MOST_BYTES >> 20} MB"
    )


if __name__ == "__main__":
    main()
