"""The destinations that `prune` is tested on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from itertools import count
from pathlib import Path

import pytest

from tests.support.in_memory_kafka import MARKER, InMemoryKafka, use
from tests.support.pruned import DESTINATIONS, Kept, on_duckdb


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, InMemoryKafka, int]:
    """Three days of runs in a DuckDB file: its folder, Kafka, and the clock of the last run."""
    folder, kafka = tmp_path_factory.mktemp("prune"), InMemoryKafka()
    with pytest.MonkeyPatch.context() as patch:
        use(kafka, patch)
        with on_duckdb(kafka, folder) as opened:
            opened.days()
    return folder, kafka, opened.now_us


Fresh = Callable[[], AbstractContextManager[Kept]]
"""Opens one more copy of the file, with a Kafka of its own."""


@pytest.fixture
def fresh(filled: tuple[Path, InMemoryKafka, int], kafka: InMemoryKafka, tmp_path: Path) -> Fresh:
    folder, there, now_us = filled
    copies = count()

    @contextmanager
    def copy() -> Iterator[Kept]:
        mine = tmp_path / str(next(copies))
        shutil.copytree(folder, mine)
        vars(kafka).update(vars(deepcopy(there, {id(MARKER): MARKER})))
        with on_duckdb(kafka, mine) as opened:
            opened.now_us = now_us
            yield opened

    return copy


@pytest.fixture
def file(fresh: Fresh) -> Iterator[Kept]:
    """Three days of runs in a DuckDB file."""
    with fresh() as opened:
        yield opened


@pytest.fixture(params=DESTINATIONS)
def kept(request: pytest.FixtureRequest, kafka: InMemoryKafka, tmp_path: Path) -> Iterator[Kept]:
    """Three days of runs in each destination."""
    if request.param == "duckdb":
        yield request.getfixturevalue("file")
        return
    with DESTINATIONS[request.param](kafka, tmp_path) as opened:
        opened.days()
        yield opened
