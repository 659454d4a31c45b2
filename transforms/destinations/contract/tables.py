"""The tables and views of transforms/model/tables.py: created, compared, checked for rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from transforms.model.schema import PaymentSchema


class Tables(Protocol):
    """All tables of a destination, apart from the shard ledger."""

    def create(self, schema: PaymentSchema) -> None:
        """Creates missing tables and views, and adds new nullable columns, as the settings allow.

        Idempotent. Raises GuaranteeError, before anything is changed, where an existing table
        differs in any other way.
        """

    def preflight(self, schema: PaymentSchema) -> Iterator[tuple[str, str]]:
        """(what was looked at, what was found). Changes no table and leaves no row.

        Raises GuaranteeError where `create` would, or where a right is missing that a run needs.
        """

    def exist(self) -> bool:
        """False where no run has created them."""

    def are_empty(self) -> bool:
        """No row in any of the three tables of records."""
