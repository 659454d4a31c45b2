"""Whether the tables hold what a LoadWithCopies has sent, each payment once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.load_with_copies import STORED
from pipeline.produce.message_generator import COPY, PAYMENT
from transforms.destinations.open import open_destination
from transforms.model.tables import DUPLICATES, PAYMENTS, REJECTED


def differences(file: Path, sent: Mapping[str, int], stored_topic: str, ids: int) -> list[str]:
    """What is not as it must be. sent: messages by kind. ids: payments of `stored_topic`.

    That each message has its row, and no other one has, `check` says by their coordinates.
    """
    streamed = f"{PAYMENTS} WHERE kafka_topic <> '{stored_topic}'"
    stored = f"{PAYMENTS} WHERE kafka_topic = '{stored_topic}'"
    copies = f"{DUPLICATES} WHERE transaction_id IN (SELECT transaction_id FROM {stored})"
    wanted = {
        f"count(*) FROM {streamed}": sent[PAYMENT],
        f"count(DISTINCT transaction_id) FROM {streamed}": sent[PAYMENT],
        f"count(*) FROM {DUPLICATES}": sent[COPY] + sent[STORED],
        f"count(*) FROM {copies}": sent[STORED],
        f"count(*) FROM {stored}": ids,
        f"count(*) FROM {REJECTED}": 0,
    }
    with open_destination(f"duckdb:{file}") as destination:
        found = {what: destination.query(f"SELECT {what}").column(0)[0].as_py() for what in wanted}
    return [
        f"{what} is {found[what]:,}, must be {number:,}"
        for what, number in wanted.items()
        if found[what] != number
    ]
