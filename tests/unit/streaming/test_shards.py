"""The number of shards goes from job to job; after a stop, --from_tables may change it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.streaming.begin import Begun
from pipeline.streaming.shards import shards_of_job
from pipeline.streaming.stop import stop_streaming
from tests.support.in_memory_kafka import NOW_US, InMemoryKafka, config, payment, run
from transforms.destinations.contract.destination import chain_of
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.errors import GuaranteeError


def shards(path: Path, wanted: int, *, given: bool = True, from_tables: bool = False) -> int:
    with DuckDBDestination(path) as destination:
        return shards_of_job(chain_of(destination), wanted, given, from_tables=from_tables)


def test_an_empty_destination_takes_what_is_wanted(path: Path) -> None:
    assert shards(path, 7, given=False) == 7
    assert shards(path, 7) == 7


def test_bounded_runs_fix_no_number(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    run(config(path, shards=3))
    assert shards(path, 7) == 7


def test_while_a_job_owns_the_tables_its_number_stays(begun: Begun, path: Path) -> None:
    assert begun.shards == 4
    assert shards(path, 8, given=False) == 4
    assert shards(path, 4) == 4
    for from_tables in (False, True):
        with pytest.raises(GuaranteeError) as refused:
            shards(path, 8, from_tables=from_tables)
        assert refused.value.message.startswith(f"--shards=8: the streaming job {begun.job.job_id}")
        assert "`stop --lost`" in refused.value.message


def test_behind_a_stop_from_tables_may_change_it(
    begun: Begun, kafka: InMemoryKafka, path: Path
) -> None:
    with DuckDBDestination(path) as destination:
        stop_streaming(destination, lambda: NOW_US)
    kafka.send("payments", 0, payment("b"))
    run(config(path, shards=3))
    assert shards(path, 8, given=False, from_tables=True) == 4
    assert shards(path, 8, from_tables=True) == 8
    with pytest.raises(GuaranteeError, match="add --from_tables"):
        shards(path, 8)
