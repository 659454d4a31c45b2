"""A small run has few shards, unless --shards says how many."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.run.read_and_write import shards_of_run
from tests.support.in_memory_kafka import config


@pytest.mark.parametrize(
    ("records", "shards"), [(0, 1), (8, 1), (49_999, 1), (50_000, 2), (99_999, 3), (10**9, 4)]
)
def test_a_shard_for_each_25_000_records_up_to_the_default(
    tmp_path: Path, records: int, shards: int
) -> None:
    assert shards_of_run(config(tmp_path / "p.duckdb", shards_given=False), records) == shards


def test_a_given_number_holds_for_every_run(tmp_path: Path) -> None:
    assert shards_of_run(config(tmp_path / "p.duckdb", shards=7), 8) == 7
