"""The questions of check_queries.py in GoogleSQL. What they share with other questions is in
bigquery_sql.py.
"""

from __future__ import annotations

from functools import partial

from transforms.destinations.bigquery.sql import (
    Name,
    block_of,
    in_range,
    offset_runs,
    ranges_of_runs,
    rows_of_tables,
)
from transforms.destinations.bigquery.totals import checksum, totals_of_rows
from transforms.destinations.contract.checks import CheckQueries
from transforms.destinations.contract.run_ledger import COMMITTED, PREPARED
from transforms.model.tables import AUDIT_VIEW, DUPLICATES, GAPS, PAYMENTS, REJECTED, RUNS, TOTALS
from transforms.model.totals import UNOBSERVED


def bigquery_checks(name: Name) -> CheckQueries:
    rows = rows_of_tables(name)
    return CheckQueries(
        distinct_ids=f"SELECT COUNT(DISTINCT transaction_id) AS uniq, COUNT(*) AS total FROM {name(PAYMENTS)} WHERE {_within('event_time')}",
        duplicate_rate=f"SELECT AVG(dup_count) AS average FROM {name(AUDIT_VIEW)} WHERE {_within('first_occurrence_time')}",
        copies_of_repeated_ids=_copies_of_repeated_ids(name),
        coordinate_runs=offset_runs(f"({rows})", "kafka_topic, kafka_partition"),
        repeated_coordinates=f"""
SELECT kafka_topic, kafka_partition, kafka_offset, COUNT(*) AS n, STRING_AGG(table_name, ', ' ORDER BY table_name) AS tables
FROM ({rows}) GROUP BY kafka_topic, kafka_partition, kafka_offset HAVING COUNT(*) > 1""",
        gaps=f"SELECT kafka_topic, kafka_partition, first_offset, last_offset FROM {name(GAPS)}",
        rows_by_run=_rows_by_run(name),
        highest_event_times=_highest_event_times(name),
        reasons=f"""SELECT reason, COUNT(*) AS n FROM {name(REJECTED)}
WHERE {_within("ingest_time")} AND UNIX_MICROS(ingest_time) IN UNNEST(@times) GROUP BY reason""",
        unobserved_windows=f"""SELECT DISTINCT {_window_text("window_start")} AS window_start FROM {name(TOTALS)}
WHERE outcome = '{UNOBSERVED}'""",
        totals_differences=partial(_totals_differences, name),
    )


def _within(column: str) -> str:
    return f"{column} BETWEEN TIMESTAMP_MICROS(@first_time) AND TIMESTAMP_MICROS(@last_time)"


def _copies_of_repeated_ids(name: Name) -> str:
    """One day's bounds leave out no partition here: the other payments of an id may lie on any day."""
    copies = " UNION ALL ".join(
        f"SELECT {str(table == PAYMENTS).upper()} AS is_payment, transaction_id,"
        " UNIX_MICROS(event_time) AS event_time_us, kafka_topic,"
        f" kafka_partition, kafka_offset FROM {name(table)}"
        for table in (PAYMENTS, DUPLICATES)
    )
    return f"""
WITH repeated AS (
    SELECT transaction_id FROM {name(PAYMENTS)} GROUP BY transaction_id HAVING COUNT(*) > 1 AND COUNTIF({_within("event_time")}) > 0
)
SELECT is_payment, transaction_id, event_time_us, kafka_topic, kafka_partition, kafka_offset
FROM ({copies}) JOIN repeated USING (transaction_id)"""


def _rows_by_run(name: Name) -> str:
    rows = f"{rows_of_tables(name)} UNION ALL SELECT '{GAPS}', kafka_topic, kafka_partition, first_offset FROM {name(GAPS)}"
    return f"""
WITH {_committed_blocks(name)}, found AS (
    SELECT f.run_id, r.table_name, COUNT(*) AS n FROM ({rows}) AS r JOIN blocks AS f ON {_in_block("r", "f")}
    GROUP BY f.run_id, r.table_name
), expected AS (
    SELECT run.run_id, t.`table` AS table_name, t.`rows` AS n FROM {name(RUNS)} AS run, UNNEST(run.tables) AS t
    WHERE run.status = '{COMMITTED}' AND t.`table` <> '{TOTALS}'
)
SELECT run_id, table_name, expected.n AS rows_in_ledger, found.n AS rows_in_table
FROM expected FULL JOIN found USING (run_id, table_name) WHERE expected.n IS DISTINCT FROM found.n ORDER BY run_id, table_name"""


def _highest_event_times(name: Name) -> str:
    rows = " UNION ALL ".join(
        f"SELECT kafka_topic, kafka_partition, kafka_offset, event_time FROM {name(table)}"
        for table in (PAYMENTS, DUPLICATES)
    )
    return f"""
WITH {_committed_blocks(name)}
SELECT f.run_id, r.kafka_topic, r.kafka_partition, UNIX_MICROS(MAX(r.event_time)) AS highest_us
FROM ({rows}) AS r JOIN blocks AS f ON {_in_block("r", "f")} GROUP BY f.run_id, r.kafka_topic, r.kafka_partition"""


def _committed_blocks(name: Name) -> str:
    """Two tables for WITH. `blocks` has the ranges of COMMITTED runs once for each block of offsets
    that they touch.

    Joined by the partition alone, every row would be compared with every run of its partition.
    """
    return f"""spans AS ({ranges_of_runs(name, COMMITTED)}), blocks AS (
    SELECT spans.run_id, spans.topic, spans.`partition`, spans.from_offset, spans.to_offset, block
    FROM spans, UNNEST(GENERATE_ARRAY({block_of("spans.from_offset")}, {block_of("(spans.to_offset - 1)")})) AS block
)"""


def _in_block(row: str, span: str) -> str:
    return f"{block_of(f'{row}.kafka_offset')} = {span}.block AND {in_range(row, span)}"


def _totals_differences(
    name: Name, amount_column: str | None, currency_column: str | None, with_run_in_flight: bool
) -> str:
    """Both sides are put below each other and grouped, since a FULL JOIN needs equalities and a
    currency may be NULL.
    """
    source = partial(_every_row if with_run_in_flight else _not_in_flight, name)
    return f"""
WITH found AS ({totals_of_rows(source, amount_column, currency_column)}), told AS (
    SELECT window_start, outcome, currency, SUM(records) AS records, SUM(CAST(amount AS BIGNUMERIC)) AS amount,
        {checksum("checksum")} AS checksum
    FROM {name(TOTALS)} WHERE outcome <> '{UNOBSERVED}' GROUP BY window_start, outcome, currency
), sides AS (
    SELECT window_start, outcome, currency, records AS told_records, amount AS told_amount, checksum AS told_checksum,
        CAST(NULL AS INT64) AS found_records, CAST(NULL AS BIGNUMERIC) AS found_amount, CAST(NULL AS INT64) AS found_checksum FROM told
    UNION ALL
    SELECT window_start, outcome, currency, NULL, NULL, NULL, records, amount, checksum FROM found
), compared AS (
    SELECT window_start, outcome, currency, MAX(told_records) AS records_in_totals, MAX(found_records) AS records_in_tables,
        MAX(told_amount) AS amount_in_totals, MAX(found_amount) AS amount_in_tables,
        MAX(told_checksum) AS checksum_in_totals, MAX(found_checksum) AS checksum_in_tables
    FROM sides GROUP BY window_start, outcome, currency
)
SELECT {_window_text("window_start")} AS window_start, outcome, currency,
    records_in_totals, records_in_tables, amount_in_totals, amount_in_tables,
    checksum_in_totals = checksum_in_tables AS same_ids
FROM compared
WHERE records_in_totals IS DISTINCT FROM records_in_tables OR amount_in_totals IS DISTINCT FROM amount_in_tables
    OR checksum_in_totals IS DISTINCT FROM checksum_in_tables
ORDER BY window_start, outcome, currency NULLS LAST"""


def _window_text(column: str) -> str:
    """Without the zone, which is UTC."""
    return f"SUBSTR(CAST({column} AS STRING), 1, 19)"


def _every_row(name: Name, table: str) -> str:
    return f"{name(table)} AS r"


def _not_in_flight(name: Name, table: str) -> str:
    return f"{name(table)} AS r LEFT JOIN ({ranges_of_runs(name, PREPARED)}) AS f ON {in_range('r', 'f')} WHERE f.run_id IS NULL"
