"""Canonical Huffman codes whose lengths have a limit.

Huffman's own algorithm gives the cheapest prefix code, of any length. With a limit the cheapest lengths are found by
package-merge (Larmore and Hirschberg, 1990): a symbol of probability p is a coin of that value in each of the
denominations 1/2 … 1/2^limit; pairs of the smallest coins of a denomination become one of the next, and the
2 (n - 1) smallest of the last give the lengths: as often as a symbol is among them, so many bits has its code.
At each denomination the symbols that are taken are the rarest, so their number is enough, and no tree is made.

Canonical: codes count upwards in the order of (length, symbol), so that the lengths alone say which they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import ArtifactError

LIMIT = 16
SLACK = 1.0005  # a shorter limit, whose tables are smaller and faster, may cost this much

Lengths = NDArray[np.uint8]


def code_lengths(counts: NDArray[np.int64], limit: int = LIMIT) -> Lengths:
    """Bits of each symbol's code, of the cheapest prefix code with no code longer than `limit`.

    >>> code_lengths(np.array([5, 2, 1, 1, 0])).tolist()
    [1, 2, 3, 3, 0]

    A symbol that never occurs has none (0). The only symbol of a sequence needs no bits, and has 0 too. Raises
    `ArtifactError` if `limit` bits cannot tell the symbols apart.
    """
    used = np.flatnonzero(counts)
    lengths = np.zeros(len(counts), np.uint8)
    if len(used) < 2:
        return lengths
    if len(used) > 1 << limit:
        raise ArtifactError(f"{len(used):,} symbols cannot have codes of at most {limit} bits")
    order = used[np.argsort(counts[used], kind="stable")]
    weights = counts[order].astype(np.int64)
    taken = _package_merge(weights, limit)
    lengths[order] = (taken[:, None] > np.arange(len(order))).sum(0)
    return lengths


def _package_merge(weights: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """How many symbols, the rarest first, are taken at each denomination."""
    leaves = len(weights)
    coins = weights
    before: list[NDArray[np.int64]] = [np.arange(leaves + 1)]  # symbols among the first k coins
    for _ in range(limit - 1):
        pairs = coins[: len(coins) // 2 * 2].reshape(-1, 2).sum(1)
        merged = np.concatenate([weights, pairs])
        order = np.argsort(merged, kind="stable")
        coins = merged[order]
        before.append(np.concatenate([[0], np.cumsum(order < leaves)]))
    taken = []
    wanted = 2 * (leaves - 1)
    for symbols in reversed(before):
        taken.append(symbols[wanted])
        wanted = 2 * (wanted - symbols[wanted])
    return np.array(taken)


def best_lengths(counts: NDArray[np.int64]) -> Lengths:
    """The lengths of the smallest limit that costs next to nothing: short codes have small tables.

    >>> int(best_lengths(2 ** np.arange(14)).max())
    12
    """
    best = code_lengths(counts)
    cost = int((best * counts).sum())
    needed = max(1, int(np.count_nonzero(counts) - 1).bit_length())
    for limit in range(max(needed, 8), int(best.max())):
        lengths = code_lengths(counts, limit)
        if int((lengths * counts).sum()) <= cost * SLACK:
            return lengths
    return best


def codes(lengths: Lengths) -> NDArray[np.uint64]:
    """The canonical code of each symbol, in its lowest bits.

    >>> [f"{code:0{bits}b}" for code, bits in zip(codes(np.array([2, 1, 3, 3])).tolist(), [2, 1, 3, 3])]
    ['10', '0', '110', '111']
    """
    order = _canonical_order(lengths)
    sizes = lengths[order].astype(np.int64)
    spans = np.left_shift(1, LIMIT - sizes)
    starts = np.cumsum(spans) - spans  # each code followed by zeros up to LIMIT bits
    result = np.zeros(len(lengths), np.uint64)
    result[order] = np.right_shift(starts, LIMIT - sizes)
    return result


def decode_table(lengths: Lengths) -> tuple[NDArray[np.uint16], NDArray[np.int64], int]:
    """For each pattern of the longest code's bits: the symbol that it begins with, that symbol's bits; and those bits.

    >>> symbols, bits, longest = decode_table(np.array([2, 1, 3, 3]))
    >>> symbols.tolist(), bits.tolist(), longest
    ([1, 1, 1, 1, 0, 0, 2, 3], [1, 1, 1, 1, 2, 2, 3, 3], 3)
    """
    order = _canonical_order(lengths)
    sizes = lengths[order].astype(np.int64)
    longest = int(sizes[-1])
    spans = np.left_shift(1, longest - sizes)
    return np.repeat(order, spans).astype(np.uint16), np.repeat(sizes, spans), longest


def check_lengths(lengths: Lengths) -> None:
    """Refuse lengths that are no whole prefix code: by Kraft's sum, 2^-length over all symbols is 1.

    >>> check_lengths(np.array([1, 1, 1]))
    Traceback (most recent call last):
        ...
    lianzhi.errors.ArtifactError: the lengths of its codes are not those of a prefix code
    """
    sizes = lengths[lengths > 0].astype(np.int64)
    if not len(sizes) or int(sizes.max()) > LIMIT or int(np.left_shift(1, LIMIT - sizes).sum()) != 1 << LIMIT:
        raise ArtifactError("the lengths of its codes are not those of a prefix code")


def entropy(counts: NDArray[np.int64]) -> float:
    """Shannon's bound for the whole sequence, in bits: no code of single symbols is shorter.

    >>> entropy(np.array([2, 1, 1]))
    6.0
    """
    present = counts[counts > 0].astype(np.float64)
    return float((present * (np.log2(present.sum()) - np.log2(present))).sum()) if len(present) > 1 else 0.0


def _canonical_order(lengths: Lengths) -> NDArray[np.int64]:
    used = np.flatnonzero(lengths)
    return used[np.argsort(lengths[used], kind="stable")]
