"""A table of ids that another job has paid, in each destination, and runs behind it.

`kept` is what has an open destination as its `real`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.options.config import OFFSETS, Start
from tests.support.in_memory_kafka import HOUR_US, NOW_US
from tests.support.pruned import Kept
from tests.support.whole_runs import IDS
from transforms.destinations.bigquery.destination import BigQueryDestination
from transforms.destinations.bigquery.queries import fresh_job_id
from transforms.destinations.contract.seed import SeedTable

OLD = "old_payments"
WATERMARK_US = NOW_US - HOUR_US

Paid = tuple[str | int | None, int | None]
"""Id and event time, in microseconds."""


def full_name(kept: Any, table: str = OLD) -> str:
    """As the ledger has it."""
    if isinstance(kept.real, BigQueryDestination):
        return f"{kept.real.settings.project}.{kept.real.settings.dataset}.{table}"
    return table


def ids(kept: Kept, sql: str = IDS) -> list[str]:
    """The first column of a query, by default the ids of all payments."""
    return [row[0] for row in kept.sql(sql)]


def seed_of_old(kept: Any) -> SeedTable:
    return SeedTable(
        table=full_name(kept), key_column="transaction_id", event_time_column="event_time"
    )


def change(kept: Any, statement: str) -> None:
    """Executes a statement of a user, in which {old} is the table."""
    text = statement.format(old=full_name(kept))
    if isinstance(kept.real, BigQueryDestination):
        text = text.replace(full_name(kept), f"`{full_name(kept)}`")
        kept.real.queries.execute(text, (), fresh_job_id("user"))
    else:
        kept.real.session.cursor().execute(text)


def pay_before(
    kept: Any, paid: Sequence[Paid], key: str = "STRING", time: str = "TIMESTAMP"
) -> None:
    """Creates the table with these rows; key and time: types of its columns."""
    on_bigquery = isinstance(kept.real, BigQueryDestination)
    rows = " UNION ALL ".join(
        f"SELECT CAST({'NULL' if one is None else repr(one)} AS {key}) AS transaction_id,"
        f" {_moment(at, time, on_bigquery)} AS event_time"
        for one, at in paid
    )
    if on_bigquery:
        columns = f"(transaction_id {'INT64' if key == 'BIGINT' else key}, event_time {time})"
        change(kept, f"CREATE TABLE {{old}} {columns} AS {rows}".replace("BIGINT", "INT64"))
    else:
        change(kept, f"CREATE TABLE {{old}} AS {rows}")


def also_paid(kept: Any, key: str, at: int) -> None:
    """The old job writes one more row."""
    on_bigquery = isinstance(kept.real, BigQueryDestination)
    moment = _moment(at, "TIMESTAMP", on_bigquery)
    change(kept, f"INSERT INTO {{old}} (transaction_id, event_time) VALUES ('{key}', {moment})")


def _moment(at: int | None, kind: str, on_bigquery: bool) -> str:
    if at is None:
        return f"CAST(NULL AS {kind})"
    if on_bigquery:
        moment = f"TIMESTAMP_MICROS({at})"
        return f"DATETIME({moment})" if kind == "DATETIME" else moment
    return f"make_timestamptz({at})" if "ZONE" in kind else f"make_timestamp({at})"


def checkpoint(folder: Path, batches: Sequence[tuple[Any, int, bool]]) -> Start:
    """A checkpoint folder as Spark leaves it. batches: offsets, the watermark in microseconds that
    the batch was judged by, and whether it is committed.
    """
    for name in ("offsets", "commits"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / ".0.crc").write_bytes(b"crc")
    for number, (offsets, watermark_us, committed) in enumerate(batches):
        metadata = {
            "batchWatermarkMs": watermark_us // 1000,
            "batchTimestampMs": 1,
            "conf": {"spark.sql.shuffle.partitions": "2"},
        }
        (folder / "offsets" / str(number)).write_text(
            f"v1\n{json.dumps(metadata)}\n{json.dumps(offsets)}"
        )
        if committed:
            following = batches[number + 1][1] if number + 1 < len(batches) else watermark_us
            (folder / "commits" / str(number)).write_text(
                f'v1\n{{"nextBatchWatermarkMs":{following // 1000}}}'
            )
    return Start(OFFSETS, given=str(folder))


def begin(kept: Kept, tmp_path: Path, watermark_us: int = WATERMARK_US, **changes: Any) -> None:
    """The first run; the old job has read nothing of the topic that it would read again."""
    kept.settings = replace(
        kept.settings,
        start=checkpoint(tmp_path / "old", [({"payments": {"0": 0}}, watermark_us, True)]),
        seed=seed_of_old(kept),
        **changes,
    )
    kept.run()
