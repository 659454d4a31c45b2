from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.options.schema_file import load_schema
from transforms.destinations.duckdb.destination import DuckDBDestination


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[DuckDBDestination]:
    with DuckDBDestination(str(tmp_path / "test.duckdb")) as opened:
        opened.tables.create(load_schema(None))
        yield opened
