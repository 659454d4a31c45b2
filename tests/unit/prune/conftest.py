"""The destinations that `prune` is tested on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from functools import cache
from itertools import count
from pathlib import Path

import pytest

from tests.support.in_memory_kafka import MARKER, InMemoryKafka, use
from tests.support.pruned import DESTINATIONS, Kept

Filled = tuple[Path, InMemoryKafka, int]
"""Three days of runs: the folder of the destination, Kafka, and the clock of the last run."""


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Filled]:
    """By the name of a destination. Not to be opened: copy it."""

    @cache
    def fill(name: str) -> Filled:
        folder, kafka = tmp_path_factory.mktemp("prune"), InMemoryKafka()
        with pytest.MonkeyPatch.context() as patch:
            use(kafka, patch)
            with DESTINATIONS[name](kafka, folder) as opened:
                opened.days()
        return folder, kafka, opened.now_us

    return fill


Fresh = Callable[..., AbstractContextManager[Kept]]
"""Opens one more copy, with a Kafka of its own: of the DuckDB file, or of the destination named."""


@pytest.fixture
def fresh(filled: Callable[[str], Filled], kafka: InMemoryKafka, tmp_path: Path) -> Fresh:
    copies = count()

    @contextmanager
    def copy(name: str = "duckdb") -> Iterator[Kept]:
        folder, there, now_us = filled(name)
        mine = tmp_path / str(next(copies))
        shutil.copytree(folder, mine)
        vars(kafka).update(vars(deepcopy(there, {id(MARKER): MARKER})))
        with DESTINATIONS[name](kafka, mine) as opened:
            opened.now_us = now_us
            yield opened

    return copy


@pytest.fixture
def file(fresh: Fresh) -> Iterator[Kept]:
    """Three days of runs in a DuckDB file."""
    with fresh() as opened:
        yield opened


@pytest.fixture(params=DESTINATIONS)
def kept(request: pytest.FixtureRequest, fresh: Fresh) -> Iterator[Kept]:
    """Three days of runs in each destination."""
    with fresh(request.param) as opened:
        yield opened
