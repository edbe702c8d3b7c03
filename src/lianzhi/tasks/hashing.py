"""Random numbers as a function of (seed, epoch, sample id, purpose), without any state.

A counter-based generator: the counter is mixed by the finalizer of SplitMix64 (Steele, Lea, Flood, 2014), so
that a sample's draws do not depend on the samples around it, on the process, or on what was drawn before.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def key(*parts: int | str) -> np.uint64:
    """A 64-bit key of the parts, such as a seed, an epoch and a purpose.

    >>> key(0, 1, "flip") == key(0, 1, "flip")
    np.True_
    >>> key(0, 1, "flip") == key(0, 2, "flip")
    np.False_
    """
    digest = hashlib.blake2b("/".join(str(part) for part in parts).encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def bits(key: np.uint64, counters: NDArray[np.int64]) -> NDArray[np.uint64]:
    """64 random bits for each counter."""
    value = (counters.astype(np.uint64) + np.uint64(1)) * _GOLDEN + key
    value = (value ^ (value >> np.uint64(30))) * _FIRST
    value = (value ^ (value >> np.uint64(27))) * _SECOND
    return value ^ (value >> np.uint64(31))


def uniform(key: np.uint64, counters: NDArray[np.int64]) -> NDArray[np.float64]:
    """A number in [0, 1) for each counter.

    >>> draws = uniform(key(0), np.arange(10_000))
    >>> bool(0 <= draws.min() and draws.max() < 1 and abs(draws.mean() - 0.5) < 0.01)
    True
    """
    return (bits(key, counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def integers(key: np.uint64, counters: NDArray[np.int64], below: int) -> NDArray[np.int64]:
    """A whole number in [0, below) for each counter."""
    return (uniform(key, counters) * below).astype(np.int64)


def permutation(key: np.uint64, count: int) -> NDArray[np.int64]:
    """The numbers 0 … count - 1 in random order.

    >>> sorted(permutation(key(0), 5).tolist())
    [0, 1, 2, 3, 4]
    """
    return np.argsort(bits(key, np.arange(count)), kind="stable")


def digest(*parts: bytes | str) -> str:
    """A short hexadecimal digest of the parts, for fingerprints.

    >>> digest("a", "bc") == digest("ab", "c")
    False
    """
    whole = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "little"))
        whole.update(data)
    return whole.hexdigest()
