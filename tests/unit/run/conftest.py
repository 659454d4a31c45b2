"""Destinations for runs behind another job, whose ids are the seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.in_memory_kafka import InMemoryKafka
from tests.support.pruned import DESTINATIONS, Kept


@pytest.fixture(params=DESTINATIONS)
def kept(
    request: pytest.FixtureRequest, one_topic: InMemoryKafka, tmp_path: Path
) -> Iterator[Kept]:
    """A destination without a run, and a topic with one partition."""
    with DESTINATIONS[request.param](one_topic, tmp_path) as opened:
        yield opened


@pytest.fixture
def file(one_topic: InMemoryKafka, tmp_path: Path) -> Iterator[Kept]:
    """The same, in a DuckDB file."""
    with DESTINATIONS["duckdb"](one_topic, tmp_path) as opened:
        yield opened
