"""The options that name a table of ids which another job has paid."""

from __future__ import annotations

import re
from argparse import Namespace
from typing import Final

from transforms.destinations.bigquery.settings import parse_target
from transforms.destinations.contract.seed import SeedTable
from transforms.destinations.contract.shard_ledger import SHARD_LEDGER
from transforms.model.errors import UsageError
from transforms.model.tables import AUDIT_VIEW, COVERAGE_VIEW, GAPS, ROW_TABLES, RUNS, TOTALS

KEY: Final = "transaction_id"
EVENT_TIME: Final = "event_time"

_OURS: Final = (*ROW_TABLES, GAPS, TOTALS, RUNS, SHARD_LEDGER, AUDIT_VIEW, COVERAGE_VIEW)
_COLUMN: Final = re.compile(r"[A-Za-z_]\w{0,299}", re.ASCII)
_IN_FILE: Final = re.compile(r"[A-Za-z]\w{0,299}", re.ASCII)
_IN_DATASET: Final = re.compile(r"[\w-]{1,1024}", re.ASCII)
_FULL: Final = re.compile(r"(?:[a-z0-9.-]+:)?[a-z0-9-]+\.\w{1,1024}\.[\w-]{1,1024}", re.ASCII)


def seed_table(given: Namespace) -> SeedTable | None:
    """None where there is none. given: the parsed arguments. Raises UsageError."""
    if given.seed_ids is None:
        for flag in ("seed_key", "seed_event_time"):
            if value := getattr(given, flag):
                raise UsageError(
                    f"--{flag}={value} without --seed_ids: it names a column of that table. Leave"
                    " it out, or add --seed_ids."
                )
        return None
    key, event_time = given.seed_key or KEY, given.seed_event_time or EVENT_TIME
    for flag, column in (("seed_key", key), ("seed_event_time", event_time)):
        if not _COLUMN.fullmatch(column):
            raise UsageError(
                f"--{flag}={column}: must be a column of letters, digits and underscores. Where it"
                " has another name, make a view."
            )
    return SeedTable(
        table=_table(given.seed_ids, given.destination, given.table_prefix),
        key_column=key,
        event_time_column=event_time,
    )


def _table(name: str, destination: str, prefix: str) -> str:
    """The one name that the ledger has for the table, however it was given."""
    if not destination.startswith("bigquery:"):
        if not _IN_FILE.fullmatch(name):
            raise UsageError(
                f"--seed_ids={name}: must be a table of the same DuckDB file, a name of letters,"
                " digits and underscores."
            )
        if name.lower() in _OURS:
            raise _is_ours(name)
        return name
    project, dataset = parse_target(destination)
    full = f"{project}.{dataset}.{name}" if _IN_DATASET.fullmatch(name) else name
    if not _FULL.fullmatch(full):
        raise UsageError(
            f"--seed_ids={name}: must be PROJECT.DATASET.TABLE, or a table of the destination's"
            " dataset."
        )
    if full in {f"{project}.{dataset}.{prefix}{table}" for table in _OURS}:
        raise _is_ours(name)
    return full


def _is_ours(name: str) -> UsageError:
    return UsageError(
        f"--seed_ids={name}: this pipeline writes to a table of that name. Name the one that the"
        " old job has written to; --table_prefix gives ours other names in BigQuery."
    )
