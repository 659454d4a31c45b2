"""What `prune` asks and removes: the texts behind contract/pruning.py.

The questions read the coordinates of all rows, as `check` does. The rows that go are told from
those that stay by rows that no prune removes, so the same condition holds before, while and after
they go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from transforms.destinations.contract.pruning import Cut
from transforms.destinations.contract.visible_rows import (
    range_parameters,
    single_number,
    totals_batch,
)
from transforms.destinations.sql.coordinates import in_range, offset_runs, same_partition, union
from transforms.destinations.sql.dialect import Dialect
from transforms.destinations.sql.totals import totals_of_rows
from transforms.destinations.sql.visible_rows import present_offsets
from transforms.model.coordinates import OffsetRange, TopicPartition
from transforms.model.tables import (
    DUPLICATES,
    EARLIEST_US,
    GAPS,
    NO_RECORD,
    PAYMENTS,
    REJECTED,
    ROW_TABLES,
    TOTALS,
)
from transforms.model.totals import UNOBSERVED

_REMOVED_IN_ORDER = (DUPLICATES, PAYMENTS, REJECTED)


class SqlPruning:
    """The questions and changes of contract/pruning.py, in one dialect.

    ask: (text, parameters by name) -> answer. change: executes DML in the same way; it raises
    TryAgainLater where rows are too new to be removed.
    """

    def __init__(
        self,
        dialect: Dialect,
        ask: Callable[[str, Mapping[str, Any]], pa.Table],
        change: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self._dialect = dialect
        self._ask = ask
        self._change = change

    def _asked(self, text: str, values: Mapping[str, Any]) -> pa.Table:
        return self._ask(text, self._mentioned(text, values))

    def _changed(self, text: str, values: Mapping[str, Any]) -> None:
        self._change(text, self._mentioned(text, values))

    def _mentioned(self, text: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """DuckDB refuses a value that no parameter of the text stands for."""
        return {
            name: value for name, value in values.items() if self._dialect.parameter(name) in text
        }

    def first_since(self, event_time_us: int) -> Mapping[TopicPartition, int]:
        dialect = self._dialect
        rows = union(
            f"SELECT kafka_topic, kafka_partition, kafka_offset FROM {dialect.table(table)}"
            f" WHERE event_time >= {dialect.moment(dialect.parameter('since'))}"
            for table in (PAYMENTS, DUPLICATES)
        )
        found = self._asked(
            f"SELECT kafka_topic, kafka_partition, MIN(kafka_offset) AS first_offset FROM ({rows})"
            " GROUP BY kafka_topic, kafka_partition",
            {"since": event_time_us},
        )
        return {
            (row["kafka_topic"], row["kafka_partition"]): row["first_offset"]
            for row in found.to_pylist()
        }

    def latest(self, ranges: tuple[OffsetRange, ...]) -> int | None:
        dialect = self._dialect
        rows = union(
            f"SELECT r.event_time FROM {dialect.aliased(table, 'r')} WHERE {self._in_cut('r')}"
            for table in (PAYMENTS, DUPLICATES)
        )
        found = self._asked(
            f"SELECT {dialect.micros('MAX(event_time)')} AS latest FROM ({rows})",
            range_parameters(ranges),
        )
        latest: int | None = found.column("latest")[0].as_py()
        return latest

    def rows_in(self, ranges: tuple[OffsetRange, ...]) -> pa.Table:
        return self._asked(present_offsets(self._dialect), range_parameters(ranges))

    def kept_in(self, ranges: tuple[OffsetRange, ...]) -> pa.Table:
        rows = union(
            f"""
        SELECT '{table}' AS table_name, r.kafka_topic, r.kafka_partition, r.kafka_offset
        FROM {self._dialect.aliased(table, "r")}
        WHERE {self._in_cut("r")} AND r.transaction_id IN ({self._ids_above()})"""
            for table in (PAYMENTS, DUPLICATES)
        )
        columns = "table_name, kafka_topic, kafka_partition"
        text = offset_runs(self._dialect.divide, f"({rows}) AS kept", columns)
        return self._asked(text, range_parameters(ranges))

    def gaps_in(self, ranges: tuple[OffsetRange, ...]) -> pa.Table:
        dialect = self._dialect
        return self._asked(
            f"""
SELECT r.kafka_topic, r.kafka_partition, r.first_offset, r.last_offset, r.cause
FROM {dialect.aliased(GAPS, "r")} JOIN {dialect.ranges} AS f
ON {in_range("r", "f", "first_offset")}""",
            range_parameters(ranges),
        )

    def totals_to_take_off(
        self, cut: Cut, amount_column: str | None, currency_column: str | None
    ) -> pa.RecordBatch:
        dialect = self._dialect
        totals = totals_of_rows(
            dialect,
            lambda table: f"{dialect.aliased(table, 'r')} WHERE {self._removed(table)}",
            amount_column,
            currency_column,
        )
        found = self._asked(
            f"""
SELECT window_start, outcome, currency, records, CAST(amount AS {dialect.amount_type}) AS amount,
    checksum
FROM ({totals}) WHERE window_start >= {self._bound("windows_before")}
    OR window_start IN ({self._windows_left()})""",
            _parameters(cut),
        )
        return totals_batch(found)

    def records_in_totals(self, cut: Cut) -> int:
        return single_number(
            self._asked(
                "SELECT CAST(COALESCE(SUM(records), 0) AS INT64) AS n"
                f" FROM {self._dialect.table(TOTALS)}"
                f" WHERE outcome <> '{UNOBSERVED}' AND {self._totals_that_go()}",
                _parameters(cut),
            )
        )

    def refuse_fresh_rows(self) -> None:
        for table in _REMOVED_IN_ORDER:
            # No offset is negative, so no row goes.
            self._changed(f"DELETE FROM {self._dialect.table(table)} WHERE kafka_offset < 0", {})
        for table, condition in ((GAPS, "first_offset < 0"), (TOTALS, "outcome = ''")):
            self._changed(f"DELETE FROM {self._dialect.table(table)} WHERE {condition}", {})

    def remove_gaps_and_totals(self, cut: Cut, still_mine: Callable[[], None]) -> None:
        gaps = f"r.cause = '{NO_RECORD}' AND {self._in_cut('r', 'first_offset')}"
        for table, condition in ((GAPS, gaps), (TOTALS, self._totals_that_go())):
            there = self._dialect.aliased(table, "r")
            left = f"SELECT COUNT(*) AS n FROM {there} WHERE {condition}"
            if single_number(self._asked(left, _parameters(cut))):
                still_mine()
                self._changed(f"DELETE FROM {there} WHERE {condition}", _parameters(cut))

    def remove_rows(self, cut: Cut, still_mine: Callable[[], None]) -> None:
        for table in _REMOVED_IN_ORDER:
            still_mine()
            there = self._dialect.aliased(table, "r")
            self._changed(f"DELETE FROM {there} WHERE {self._removed(table)}", _parameters(cut))

    def _in_cut(self, row: str, offset: str = "kafka_offset") -> str:
        return f"""EXISTS (SELECT 1 FROM {self._dialect.ranges} AS f
    WHERE {in_range(row, "f", offset)})"""

    def _ids_above(self) -> str:
        """Query: ids of which a duplicate stays."""
        return f"""SELECT d.transaction_id FROM {self._dialect.aliased(DUPLICATES, "d")}
    WHERE NOT EXISTS (SELECT 1 FROM {self._dialect.ranges} AS above
        WHERE {same_partition("d", "above")} AND d.kafka_offset < above.to_offset)"""

    def _removed(self, table: str) -> str:
        """Condition on the alias r: the row goes. The bounds of time are there for the partitions
        of the tables; each row of the cut meets them.
        """
        if table == REJECTED:
            return f"r.ingest_time <= {self._bound('ingested_until')} AND {self._in_cut('r')}"
        return f"""r.event_time <= {self._bound("latest")} AND {self._in_cut("r")}
    AND r.transaction_id NOT IN ({self._ids_above()})"""

    def _windows_left(self) -> str:
        """Query: windows before the bound of which a row stays."""
        dialect, bound = self._dialect, self._bound("windows_before")
        windows = []
        for table in ROW_TABLES:
            moment = "r.event_time"
            if table == REJECTED:
                moment = f"COALESCE(r.event_time, r.kafka_timestamp, {dialect.moment('0')})"
            windows.append(
                f"SELECT {dialect.minute(moment)} AS window_left FROM {dialect.aliased(table, 'r')}"
                f" WHERE {moment} < {bound} AND NOT ({self._removed(table)})"
            )
        return union(windows)

    def _totals_that_go(self) -> str:
        return (
            f"window_start < {self._bound('windows_before')}"
            f" AND window_start NOT IN ({self._windows_left()})"
        )

    def _bound(self, name: str) -> str:
        return self._dialect.moment(self._dialect.parameter(name))


def _parameters(cut: Cut) -> dict[str, Any]:
    return {
        **range_parameters(cut.ranges),
        "latest": EARLIEST_US if cut.latest_us is None else cut.latest_us,
        "ingested_until": cut.ingested_until_us,
        "windows_before": cut.windows_before_us,
    }
