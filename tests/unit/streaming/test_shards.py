"""The number of shards stays what the first job of a destination has begun with."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.streaming.begin import Begun
from pipeline.streaming.records import chain_of
from pipeline.streaming.shards import shards_of_ledger
from pipeline.streaming.stop import stop_streaming
from tests.support.in_memory_kafka import NOW_US, InMemoryKafka, config, payment, run
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.errors import GuaranteeError


def test_an_empty_destination_takes_what_is_wanted(path: Path) -> None:
    with DuckDBDestination(path) as destination:
        assert shards_of_ledger(chain_of(destination), 7, given=False) == 7
        assert shards_of_ledger(chain_of(destination), 7, given=True) == 7


def test_bounded_runs_fix_no_number(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    run(config(path, shards=3))
    with DuckDBDestination(path) as destination:
        assert shards_of_ledger(chain_of(destination), 7, given=True) == 7


def test_a_destination_of_a_job_keeps_its_number(begun: Begun, path: Path) -> None:
    with DuckDBDestination(path) as destination:
        assert begun.shards == 4
        assert shards_of_ledger(chain_of(destination), 8, given=False) == 4
        assert shards_of_ledger(chain_of(destination), 4, given=True) == 4
        with pytest.raises(GuaranteeError) as refused:
            shards_of_ledger(chain_of(destination), 8, given=True)
        assert refused.value.message.startswith("--shards=8: ")
        assert "use --shards=4" in refused.value.message
        stop_streaming(destination, lambda: NOW_US)
        assert shards_of_ledger(chain_of(destination), 8, given=False) == 4
