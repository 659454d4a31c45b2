"""A worker that is another process reads the ids of its shard from the files of --state_dir."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from transforms.deduplicate.id_files import IdFiles
from transforms.deduplicate.ids_format import RANGES, ranges_of
from transforms.deduplicate.known_ids import (
    ColdStart,
    StoredIds,
    forget_known_ids,
    ids_of_shard,
    load_known_ids,
)
from transforms.deduplicate.remembered_ids import RememberedIds
from transforms.deduplicate.shard_state import GROUP
from transforms.model.buckets import highest_expired_bucket
from transforms.model.fingerprints import FINGERPRINT_BYTES, shard_range

MINUTE_US = 60_000_000
BUCKETS = range(100, 110)
WATERMARK_US = 104 * MINUTE_US
SHARDS = (1, 3, 4, 64, 100)


class Destination:
    """Its tables hold some ids, and it counts how often they are asked for."""

    def __init__(self, ids: RememberedIds) -> None:
        self._ids, self.asked = ids, 0
        self.rows = self

    def __enter__(self) -> Destination:
        return self

    def __exit__(self, *_: Any) -> None:
        """Nothing is open."""

    def live_ids(self, watermark_us: int | None, extra_retention_us: int, *_: Any) -> pa.Table:
        self.asked += 1
        fingerprints, buckets = self._ids.entries()
        kind = pa.binary(FINGERPRINT_BYTES)
        values = pa.array([row.tobytes() for row in fingerprints], kind)
        return pa.table({"fingerprint": values, "bucket": pa.array(buckets)})


def some_ids(seed: int, count: int) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    fingerprints = generator.integers(0, 256, (count, FINGERPRINT_BYTES)).astype(np.uint8)
    return fingerprints, generator.choice(np.array(BUCKETS, np.int32), count)


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[tuple[RememberedIds, StoredIds, Path]]:
    """What the run begins with: the ids of two files, one on top of the other."""
    files = IdFiles(str(tmp_path), "duckdb:x")
    first, more = RememberedIds(*some_ids(1, 5_000), None), some_ids(2, 100)
    below = files.write("run-1", 5_000, first, [], [], {})
    groups = [
        GROUP.pack(int(bucket), 1) + row.tobytes()
        for row, bucket in zip(more[0], more[1], strict=True)
    ]
    changes = {int(bucket): int((more[1] == bucket).sum()) for bucket in set(more[1].tolist())}
    headers = files.write("run-2", 5_100, first, below, groups, changes)
    assert len(headers) == 2
    first.advance(groups, changes)
    first.forget_through(highest_expired_bucket(WATERMARK_US, 0))
    forget_known_ids()
    yield first, StoredIds(files, "run-2", 5_100), tmp_path
    forget_known_ids()


def same(found: Any, expected: Any) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("shards", SHARDS)
def test_a_shard_begins_with_its_ids_of_the_files_and_no_table_is_asked(
    shards: int, stored: tuple[RememberedIds, StoredIds, Path]
) -> None:
    ids, where, _ = stored
    destination: Any = Destination(ids)
    start = ColdStart(destination, "job", WATERMARK_US, 0, pickle.loads(pickle.dumps(where)))
    for shard in range(shards):
        found = ids_of_shard(start, shard, shards)
        assert same(found.entries(), ids.of_shard(shard, shards).entries())
    assert destination.asked == 0


def test_a_process_that_has_the_ids_reads_no_file(
    stored: tuple[RememberedIds, StoredIds, Path],
) -> None:
    ids, where, folder = stored
    destination: Any = Destination(ids)
    start = ColdStart(destination, "job", WATERMARK_US, 0, where)
    load_known_ids(start)
    for file in folder.iterdir():
        file.unlink()
    assert same(ids_of_shard(start, 1, 4).entries(), ids.of_shard(1, 4).entries())
    assert destination.asked == 1


@pytest.mark.parametrize("fault", ["missing", "changed", "of another run"])
def test_files_that_cannot_be_used_are_said_and_the_tables_are_asked_once(
    fault: str, stored: tuple[RememberedIds, StoredIds, Path], caplog: pytest.LogCaptureFixture
) -> None:
    ids, where, folder = stored
    live_ids = where.live_ids + (fault == "of another run")
    if fault == "missing":
        (folder / "run-1.ids").unlink()
    if fault == "changed":
        content = bytearray((folder / "run-1.ids").read_bytes())
        content[-1] ^= 1
        (folder / "run-1.ids").write_bytes(content)
    destination: Any = Destination(ids)
    start = ColdStart(
        destination, "job", WATERMARK_US, 0, StoredIds(where.files, "run-2", live_ids)
    )
    caplog.set_level(logging.WARNING)
    for shard in reversed(range(4)):
        found = ids_of_shard(start, shard, 4)
        assert same(found.entries(), ids.of_shard(shard, 4).entries())
    assert destination.asked == 1
    assert "a worker loads the ids from the tables" in caplog.text


@pytest.mark.parametrize("shards", SHARDS)
def test_the_ranges_of_a_shard_cover_it_and_hardly_more(shards: int) -> None:
    size = (1 << 16) // RANGES
    for shard in range(shards):
        first, end = shard_range(shard, shards)
        numbers = ranges_of(first, end)
        assert numbers.start * size <= first < (numbers.start + 1) * size
        assert (numbers.stop - 1) * size < end <= numbers.stop * size <= (1 << 16)
