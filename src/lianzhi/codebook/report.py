"""What packing did: a row a tensor, and the whole file."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from lianzhi.codebook.coding import Section
from lianzhi.columns import aligned


@dataclass(frozen=True)
class Layer:
    """One tensor of a packed file.

    `kept` is the share that is not zero; `bits` are those of a code without Huffman, `index_bits` those of an index
    (1 for a mask, 0 where none is needed). `bytes_shared` is the size with codes and indices of that many bits,
    `bytes` the real one. `entropy` is the least that codes can have on average and `coded` what they have, both in bits a
    code; `index_entropy` and `index_coded` are those of an index. All are 0 where nothing is coded. `bytes_float`, and so
    `ratio`, counts floating numbers of any type as float32, as the whole file's does, and others as they were.
    """

    name: str
    shape: tuple[int, ...]
    weights: int
    kept: float
    bits: int
    index_bits: int
    entropy: float
    coded: float
    index_entropy: float
    index_coded: float
    bytes_float: int
    bytes_shared: int
    bytes: int
    ratio: float
    coding: str

    @classmethod
    def of(cls, name: str, shape: tuple[int, ...], size: int, before: int, section: Section) -> Layer:
        """The row of a section; `size` is a number's bytes, `before` those that the ratio begins with."""
        weights = math.prod(shape)
        pruned = section.coding in ("gaps", "mask")
        numbers = section.kept if pruned else weights
        bits = 8 * size if not section.codebook else max(1, (section.codebook - (not pruned)).bit_length())
        shared = -(-(numbers * bits + section.indices * section.index_bits) // 8) + section.codebook * size
        after = len(section.data)
        return cls(
            name=name,
            shape=shape,
            weights=weights,
            kept=section.kept / weights if weights else 1.0,
            bits=bits,
            index_bits=section.index_bits,
            entropy=section.entropy / max(1, numbers),
            coded=section.coded / max(1, numbers),
            index_entropy=section.index_entropy / max(1, section.indices),
            index_coded=section.index_coded / max(1, section.indices),
            bytes_float=before,
            bytes_shared=size if section.coding == "constant" else shared,
            bytes=after,
            ratio=before / after,
            coding=section.coding,
        )


@dataclass(frozen=True)
class PackReport:
    """The packed file: its bytes, those of the float state dict, and a row a tensor.

    `overhead` is the share by which all coded streams together are longer than the entropy of their single symbols; tables of
    code lengths and the starts of streams count as streams. It is below 0 where runs of symbols that depend on each other
    were coded as one. `note` says what the file lacks, if anything, that nothing was
    pruned or shared where it was asked for, and which tensors were where they may be no weights.
    """

    path: str
    bytes: int
    bytes_float: int
    layers: tuple[Layer, ...]
    overhead: float
    note: str = ""

    @property
    def ratio(self) -> float:
        """Bytes of the float state dict by bytes of the file, all of it."""
        return self.bytes_float / self.bytes

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": self.path,
            "bytes": self.bytes,
            "bytes_float": self.bytes_float,
            "ratio": self.ratio,
            "overhead": self.overhead,
            "note": self.note,
            "layers": [{**asdict(layer), "shape": list(layer.shape)} for layer in self.layers],
        }

    def __str__(self) -> str:
        """A table. Beside the bits of a code without Huffman stand its entropy and the bits it has; the same of an index."""
        head = ("tensor", "shape", "weights", "kept", "bits", "entropy", "coded", "index", "entropy", "coded")
        rows = [(*head, "shared", "bytes", "ratio", "coding")]
        for layer in self.layers:
            rows.append(
                (
                    layer.name,
                    "×".join(map(str, layer.shape)) or "-",
                    f"{layer.weights:,}",
                    f"{layer.kept:.1%}",
                    str(layer.bits),
                    f"{layer.entropy:.2f}" if layer.coded else "-",
                    f"{layer.coded:.2f}" if layer.coded else "-",
                    str(layer.index_bits or "-"),
                    f"{layer.index_entropy:.2f}" if layer.index_coded else "-",
                    f"{layer.index_coded:.2f}" if layer.index_coded else "-",
                    f"{layer.bytes_shared:,}",
                    f"{layer.bytes:,}",
                    f"{layer.ratio:.1f}×",
                    layer.coding,
                )
            )
        lines = aligned(rows, left={0, 1, len(rows[0]) - 1})
        lines.append(
            f"{self.path}: {self.bytes:,} bytes of {self.bytes_float:,} ({self.ratio:.1f}×), "
            f"streams {abs(self.overhead):.1%} {'above' if self.overhead >= 0 else 'below'} their entropy"
        )
        lines += [f"note: {self.note}"] if self.note else []
        return "\n".join(lines)
