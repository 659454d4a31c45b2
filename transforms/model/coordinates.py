"""Kafka coordinates: (topic, partition, offset), runs of offsets, and a hash per coordinate.

Two sets of records are taken for the same when the sums of their 64-bit hashes are equal; the order
of the records does not matter.
"""

from __future__ import annotations

import hashlib
from array import array
from typing import Final

import numpy as np
from numpy.typing import NDArray

TopicPartition = tuple[str, int]
"""(topic, partition)."""

OffsetRange = tuple[str, int, int, int]
"""(topic, partition, from_offset, to_offset), the last one exclusive."""

HASH_MASK: Final = (1 << 64) - 1
"""Sums of coordinate hashes are kept modulo 2^64."""

_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)


def coordinate_hashes(topic: str, partition: int, offsets: NDArray[np.int64]) -> NDArray[np.uint64]:
    """One uint64 per offset: splitmix64 of the offset, salted with topic and partition.

    Source: https://prng.di.unimi.it/splitmix64.c.
    """
    salt = np.uint64(
        int.from_bytes(hashlib.sha256(f"{partition}:{topic}".encode()).digest()[:8], "big")
    )
    mixed: NDArray[np.uint64] = (offsets.astype(np.uint64) ^ salt) + _GAMMA
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
    return mixed ^ (mixed >> np.uint64(31))


def coordinate_sum(topic: str, partition: int, offsets: NDArray[np.int64]) -> int:
    """Sum of the coordinates' hashes modulo 2^64; 0 for none."""
    return int(coordinate_hashes(topic, partition, offsets).sum(dtype=np.uint64))


def int64s(values: list[int]) -> NDArray[np.int64]:
    """The numbers as a column. `array` takes Python's integers several times as fast as numpy."""
    return np.frombuffer(array("q", values), np.int64)


def expand_runs(first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every offset of the runs first .. last (inclusive), run after run.

    Memory: 16 bytes an offset at the peak, 8 in the result.
    """
    lengths = last - first + 1
    before = np.cumsum(lengths) - lengths
    offsets = np.repeat(first - before, lengths)
    offsets += np.arange(len(offsets), dtype=np.int64)
    return offsets
