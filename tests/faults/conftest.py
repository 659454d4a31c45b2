"""The destinations that the protocol of streaming is tested on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.streaming.destination import DESTINATIONS


@pytest.fixture(params=DESTINATIONS)
def destination(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each of them, open, without a table."""
    with DESTINATIONS[request.param](tmp_path) as opened:
        yield opened
