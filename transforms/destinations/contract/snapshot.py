"""The destination as it was at one moment, which is what `check` looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pyarrow as pa

from transforms.destinations.contract.checks import CheckQueries
from transforms.destinations.contract.run_ledger import RunHistory
from transforms.destinations.contract.seed import Seeds


class Snapshot(Protocol):
    """All answers are of the same moment, however many runs commit between two questions.

    It has every change that was acknowledged before the moment was taken. Used by one thread.
    """

    @property
    def checks(self) -> CheckQueries:
        """The questions, for `query` of this object only."""

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """The answer to one of `checks`. parameters: values by name."""

    @property
    def runs(self) -> RunHistory:
        """The ledger of bounded runs."""

    @property
    def seeds(self) -> Seeds:
        """Of now: what counts of a seed never changes."""
