"""Remembered ids as a file: what the ids of a run add to those of another file, or all of them.

`PAYIDS1` and a line end, the length of the header (uint32), the header as MessagePack, its SHA-256;
then a section for each of 64 equal hash ranges. A section holds groups as in shard_state.py, 10
bytes an id, and its SHA-256 stands in the header. An id may be in several files: its highest bucket
counts. Frozen by tests/unit/deduplicate/test_ids_format.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import pairwise
from typing import BinaryIO, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from transforms.deduplicate.shard_state import GROUP
from transforms.model.fingerprints import Fingerprints

RANGES: Final = 64

_MAGIC: Final = b"PAYIDS1\n"
_LENGTH: Final = struct.Struct(">I")
_DIGEST_BYTES: Final = 32
_RANGE_SHIFT: Final = 2
"""The first 6 bits of a fingerprint are its range."""


class IdsUnreadable(RuntimeError):
    """A file cannot be used; the text says why. The tables hold the same ids."""


class IdsHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a file is about.

    destination: its name. run_id: the ids are as of this run. on_top_of: run_id of the file whose
    ids belong to it as well; None: all ids are here. expired_through: ids at or below this bucket
    are not among them; None: all ids. live: bucket -> number of ids in it, over all files.
    live_ids: of the run's record. ids: how many are in this file, with those that have expired
    since and those that are in it twice. sections: bytes and SHA-256 of each.
    """

    destination: str
    run_id: str
    on_top_of: str | None
    expired_through: int | None
    live: dict[int, int]
    live_ids: int
    ids: int
    sections: list[tuple[int, bytes]]


def sections_of(fingerprints: Fingerprints, buckets: NDArray[np.int32]) -> list[bytes]:
    """The content of the 64 sections. Shapes (n, 10) and (n,), in any order."""
    numbers = fingerprints[:, 0] >> _RANGE_SHIFT
    order = np.argsort(numbers, kind="stable")
    bounds = np.searchsorted(numbers[order], np.arange(RANGES + 1))
    fingerprints, buckets = fingerprints[order], buckets[order]
    return [
        section_of(fingerprints[start:end], buckets[start:end])
        for start, end in pairwise(bounds.tolist())
    ]


def section_of(fingerprints: Fingerprints, buckets: NDArray[np.int32]) -> bytes:
    """The content of one section, a group for each bucket. Shapes (n, 10) and (n,)."""
    order = np.argsort(buckets, kind="stable")
    fingerprints = fingerprints[order]
    found, starts = np.unique(buckets[order], return_index=True)
    bounds = [*starts.tolist(), len(order)]
    return b"".join(
        piece
        for bucket, (start, end) in zip(found.tolist(), pairwise(bounds), strict=True)
        for piece in (GROUP.pack(bucket, end - start), fingerprints[start:end].tobytes())
    )


def encode_file(header: IdsHeader, sections: Sequence[bytes]) -> Iterator[bytes]:
    """The pieces of the file. header: without sections."""
    described = [(len(section), sha256(section).digest()) for section in sections]
    encoded = msgspec.msgpack.encode(msgspec.structs.replace(header, sections=described))
    yield _MAGIC + _LENGTH.pack(len(encoded)) + encoded + sha256(encoded).digest()
    yield from sections


def read_header(file: BinaryIO, path: str) -> IdsHeader:
    """The header; the file is then at its first section. Raises IdsUnreadable with the path."""
    head = file.read(len(_MAGIC) + _LENGTH.size)
    if len(head) < len(_MAGIC) + _LENGTH.size or not head.startswith(_MAGIC):
        raise IdsUnreadable(f"{path} does not begin as a file of ids")
    (length,) = _LENGTH.unpack_from(head, len(_MAGIC))
    encoded = file.read(length)
    if sha256(encoded).digest() != file.read(_DIGEST_BYTES):
        raise IdsUnreadable(f"the header of {path} is damaged")
    return msgspec.msgpack.decode(encoded, type=IdsHeader)


def skip_to_section(file: BinaryIO, header: IdsHeader, number: int) -> None:
    """file: at its first section, and then at section `number`."""
    file.seek(file.tell() + sum(size for size, _ in header.sections[:number]))


def read_section(file: BinaryIO, header: IdsHeader, number: int) -> bytes:
    """The content of section `number`, groups as in shard_state.py. Raises IdsUnreadable.

    file: at this section, and then at the next one.
    """
    size, digest = header.sections[number]
    section = file.read(size)
    if sha256(section).digest() != digest:
        raise IdsUnreadable(f"section {number} of the ids of {header.run_id} is damaged")
    return section


def ranges_of(first: int, end: int) -> range:
    """The numbers of the ranges that hold the fingerprints whose first 16 bits are in first to end
    (exclusive).
    """
    size = (1 << 16) // RANGES
    return range(first // size, -(-end // size))
