"""The cold start's queries in BigQuery: ids with a row in `payment_transactions`, or in the seed.

Their latest event time is taken over both and `duplicate_transactions`. The text is BigQuery's own,
for what it reads and what it answers. The tables are partitioned by event time, so only what the
watermark has not expired is read. An id whose payment is older than that, while a later duplicate
of it is not, is known all the same. Such ids are looked up by name: in the day before first, where
nearly all of them lie, and only the rest in all days before; the tables are clustered by the id.
What is in none of our days is looked up in the seed, in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa

from transforms.destinations.bigquery.dialect import google_sql, minute_of
from transforms.destinations.contract.seed import Seed, Seeds
from transforms.destinations.sql.cold_start import oldest_event_time
from transforms.destinations.sql.seeds import seed_rows
from transforms.model.buckets import BUCKET_US
from transforms.model.fingerprints import FINGERPRINT, FINGERPRINT_BYTES, fingerprints_of
from transforms.model.tables import DUPLICATES, EARLIEST_US, PAYMENTS

Query: TypeAlias = Callable[[str, dict[str, Any]], pa.Table]
"""Text and parameters by name -> answer."""

Name: TypeAlias = Callable[[str], str]
"""Name of a table -> its full name, quoted: BigQuerySettings.table."""

Between: TypeAlias = Callable[[str, str], str]
"""(first, last microseconds, in SQL) -> query for `transaction_id` and more of the paid ids."""

_DAY_US: Final = 86_400_000_000

_LOOKUP_BYTES: Final = 5_000_000
"""Bytes of the ids in one request, as JSON.

A request may have 10 MB (https://cloud.google.com/bigquery/quotas#query_jobs).
"""


def live_ids(
    query: Query,
    name: Name,
    watermark_us: int | None,
    extra_retention_us: int,
    shards: tuple[str, dict[str, Any]],
    seed: Seed | None = None,
    seeds: Seeds | None = None,
) -> pa.Table:
    """The answer of StoredRows.live_ids; times in microseconds.

    shards: the condition of `of_shards` for the column `digest`, and its parameters. seeds: of the
    destination; needed where there is a seed.
    """
    condition, values = shards
    oldest = oldest_event_time(watermark_us, extra_retention_us)
    seen = [_in_sight(name, table) for table in (PAYMENTS, DUPLICATES)]
    in_sight = seed is not None and seed.reaches(oldest)
    if seed is not None and seeds is not None and in_sight:
        seeds.check(seed)
        ids = _of_seed(name, seed)("@oldest", str(seed.through_us))
        seen.append(f"SELECT transaction_id, event_time, TRUE FROM ({ids})")
    found = query(_packed_ids(seen, condition), {"oldest": oldest, **values})
    packed = [blob or b"" for blob in found.column("fingerprints").to_pylist()]
    ids_in_row = np.array([len(blob) // FINGERPRINT_BYTES for blob in packed], dtype=np.int64)
    buckets = np.repeat(found.column("bucket").to_numpy(), ids_in_row)
    unpaid = {
        transaction_id: bucket
        for bucket, ids in zip(
            found.column("bucket").to_pylist(), found.column("unpaid").to_pylist(), strict=True
        )
        for transaction_id in ids or ()
    }
    paid_before = list(_paid_before(query, _of_payments(name), oldest, list(unpaid)))
    elsewhere = sorted(unpaid.keys() - set(paid_before))
    if seed is not None and seeds is not None and elsewhere:
        if not in_sight:
            seeds.check(seed)
        paid_before += _paid_before(
            query, _of_seed(name, seed), min(oldest, seed.through_us + 1), elsewhere
        )
    packed.append(fingerprints_of(pa.array(paid_before, pa.string())).tobytes())
    buckets = np.concatenate(
        [
            buckets,
            np.array([unpaid[transaction_id] for transaction_id in paid_before], dtype=np.int64),
        ]
    )
    fingerprints = pa.Array.from_buffers(
        FINGERPRINT, len(buckets), [None, pa.py_buffer(b"".join(packed))]
    )
    return pa.table({"fingerprint": fingerprints, "bucket": buckets})


def _in_sight(name: Name, table: str) -> str:
    return f"""
    SELECT transaction_id, event_time, {str(table == PAYMENTS).upper()} AS is_payment
    FROM {name(table)} WHERE event_time >= TIMESTAMP_MICROS(@oldest)"""


def _of_payments(name: Name) -> Between:
    return lambda first, last: (
        f"""
    SELECT transaction_id FROM {name(PAYMENTS)}
    WHERE event_time >= TIMESTAMP_MICROS({first}) AND event_time <= TIMESTAMP_MICROS({last})"""
    )


def _of_seed(name: Name, seed: Seed) -> Between:
    dialect = google_sql(name)
    return lambda first, last: seed_rows(dialect, seed, seed.time_type, first, last)


def _packed_ids(seen: list[str], condition: str) -> str:
    """The query for ids by `bucket` and `head`, the first 4 bits of their hash.

    `fingerprints`: 10 bytes for each id with a payment in sight; `unpaid`: the ids without one. An
    answer of 36 million rows of one id each would be 2 GB of JSON; this is 0.5 GB. The 4 bits keep
    one row small: a response holds at most 10 MB
    (https://cloud.google.com/bigquery/docs/reference/rest/v2/jobs/query), and 600,000 ids in a
    minute are 8 MB in base64 together, but 0.5 MB a row.
    """
    return f"""
WITH recent AS (
    SELECT transaction_id, SHA256(transaction_id) AS digest, MAX(event_time) AS event_time,
        LOGICAL_OR(is_payment) AS paid
    FROM ({" UNION ALL ".join(seen)}
    ) GROUP BY transaction_id
), named AS (
    SELECT DIV(UNIX_MICROS({minute_of("event_time")}), {BUCKET_US}) AS bucket,
        SUBSTR(TO_HEX(digest), 1, 1) AS head,
        IF(paid, SUBSTR(digest, 1, {FINGERPRINT_BYTES}), NULL) AS fingerprint,
        IF(paid, NULL, transaction_id) AS unpaid_id
    FROM recent WHERE {condition}
)
SELECT bucket, head, STRING_AGG(fingerprint, b'') AS fingerprints,
    ARRAY_AGG(unpaid_id IGNORE NULLS) AS unpaid
FROM named GROUP BY bucket, head"""


def _paid_before(query: Query, between: Between, oldest: int, ids: list[str]) -> Iterator[str]:
    """The ids of `ids` that were paid before `oldest` (microseconds). between: where they are."""
    sql = f"""
SELECT DISTINCT transaction_id FROM ({between("@since", "@until")})
WHERE transaction_id IN UNNEST(@ids)"""
    for some in _by_size(ids):
        missing = set(some)
        until = oldest
        for since in (max(EARLIEST_US, oldest - _DAY_US), EARLIEST_US):
            if missing and since < until:
                found = (
                    query(sql, {"since": since, "until": until - 1, "ids": sorted(missing)})
                    .column("transaction_id")
                    .to_pylist()
                )
                missing -= set(found)
                yield from found
            until = since


def _by_size(ids: list[str]) -> Iterator[list[str]]:
    """The ids in groups that fit a request each.

    JSON writes up to 6 bytes for one byte of a character, and BigQuery some 60 around each value.
    """
    group: list[str] = []
    size = 0
    for one in ids:
        bytes_of_one = 60 + len(json.dumps(one))
        if group and size + bytes_of_one > _LOOKUP_BYTES:
            yield group
            group, size = [], 0
        group.append(one)
        size += bytes_of_one
    if group:
        yield group
