"""The tables and views of transforms/model/tables.py: created, compared, checked for rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from transforms.model.schema import PaymentSchema


class Tables(Protocol):
    """All tables of a destination, apart from the shard ledger."""

    def create(self, schema: PaymentSchema) -> None:
        """Creates missing tables and views, and adds new nullable columns, as the settings allow.

        Idempotent. A nullable column that the schema does not name stays, and is NULL in every new
        row. Raises GuaranteeError, before anything is changed, where an existing table differs in
        any other way.
        """

    def are_for_another_schema(self, schema: PaymentSchema) -> bool:
        """Whether a payment table is there with other columns than the schema's, and this process
        may make tables. Changes nothing.
        """

    def make_anew(self, schema: PaymentSchema, still_mine: Callable[[], None]) -> None:
        """`create`, but payment tables with other columns than the schema's are dropped first.

        still_mine: asked right before each table is dropped; raises where the time for it is over.
        Raises GuaranteeError, with that table unchanged, where one of them has a row.
        """

    def preflight(self, schema: PaymentSchema) -> Iterator[tuple[str, str]]:
        """(what was looked at, what was found). Changes no table and leaves no row.

        Raises GuaranteeError where `create` would, or where a right is missing that a run needs.
        """

    def exist(self) -> bool:
        """False where no run has created them."""

    def are_empty(self) -> bool:
        """No row in any of the three tables of records, or there is no such table."""


def has_rows(table: str) -> str:
    """Why a table is not made anew."""
    return (
        f"table {table} was made for another schema and is to be made anew, but it has rows,"
        " although no run of the ledger has written any. Give back the --schema that it was made"
        " for, or use a new destination."
    )
