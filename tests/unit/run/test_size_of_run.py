"""What a small run saves: shards, unless --shards says how many, and a shuffle of what it reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.run.read_and_write import shards_of_run, spreads_input
from runners.direct import DIRECT
from runners.spark.profile import SPARK
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


@pytest.mark.parametrize(
    ("records", "ranges", "spread"),
    [(1, 1, False), (49_999, 16, False), (50_000, 16, True), (10**9, 1, True), (17, 17, True)],
)
def test_a_small_run_of_few_partitions_is_read_by_one_task(
    tmp_path: Path, records: int, ranges: int, spread: bool
) -> None:
    given = config(tmp_path / "p.duckdb", runner=SPARK)
    assert spreads_input(given, records, ranges) == spread


def test_what_direct_runner_reads_is_never_shuffled(tmp_path: Path) -> None:
    assert not spreads_input(config(tmp_path / "p.duckdb", runner=DIRECT), 10**9, 100)
