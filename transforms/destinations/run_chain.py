"""The records of the ledger in the order of their chain, whatever order a query gives them in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transforms.model.errors import GuaranteeError
from transforms.model.tables import RUNS


def in_order(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """rows: with run_id, predecessor and successor. The first one has no predecessor, the last one no successor.

    Raises GuaranteeError when a record is missing or stands outside of the chain.
    """
    following = {row["predecessor"]: row for row in rows}
    chain: list[dict[str, Any]] = []
    at = following.get(None)
    while at is not None and len(chain) <= len(rows):
        chain.append(at)
        successor, at = at["successor"], following.get(at["run_id"])
        if successor != (at["run_id"] if at else None):
            raise GuaranteeError(
                f"{RUNS}: the chain breaks behind {chain[-1]['run_id']}: its successor {successor} is not the record that follows it."
            )
    if len(chain) != len(rows):
        raise GuaranteeError(
            f"{RUNS}: {len(rows)} records, but the chain from its beginning holds {len(chain)}. Run `check`, restore the ledger."
        )
    return chain
