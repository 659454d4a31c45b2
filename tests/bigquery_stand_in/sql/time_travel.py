"""FOR SYSTEM_TIME AS OF: which rows stand for a table at a moment, and what BigQuery refuses.

Stricter than the service in one thing: a view has no history here, whatever its tables have.
Sources: limits.TIME_TRAVEL_SYNTAX and limits.TIME_TRAVEL
"""

from __future__ import annotations

from datetime import datetime, timezone

from sqlglot import exp

from tests.bigquery_stand_in import limits
from tests.bigquery_stand_in.errors import invalid_query
from tests.bigquery_stand_in.sql.rewrites import rewrite
from tests.bigquery_stand_in.warehouse import Table, Warehouse


class Moments:
    """The moments at which one statement mentions its tables."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._of_table: dict[str, datetime | None] = {}

    def bind(self, node: exp.Table, table: Table) -> str:
        """DuckDB's name of the rows that the node stands for; takes the clause out of the tree.

        Raises RestFailure.
        """
        version = node.args.get("version")
        moment = None if version is None else self._moment(version)
        node.set("version", None)
        if self._of_table.setdefault(table.sql_name, moment) != moment:
            raise invalid_query(
                f"Table {table.dataset}.{table.name} is referenced at more than one point in time"
            )
        if moment is None:
            return table.sql_name
        if table.view_query is not None:
            raise invalid_query(f"{table.name} is a view: FOR SYSTEM_TIME AS OF needs a table")
        return table.rows_at(moment)

    def _moment(self, version: exp.Version) -> datetime:
        expression = version.expression
        if version.args["kind"] != "AS OF" or expression.find(exp.Column, exp.Query, exp.Parameter):
            raise invalid_query("FOR SYSTEM_TIME AS OF expects a constant timestamp expression")
        now = self._warehouse.now()
        sql = rewrite(expression.copy(), now).sql(dialect="duckdb")
        with self._warehouse.cursor() as cursor:
            ((found,),) = cursor.execute(f"SELECT ({sql})::TIMESTAMP").fetchall()
        moment: datetime = found.replace(tzinfo=timezone.utc)
        if moment > now:
            raise invalid_query(f"Invalid snapshot time {moment}: it is in the future")
        if now - moment > limits.TIME_TRAVEL_WINDOW:
            raise invalid_query(f"Invalid snapshot time {moment}: before the time travel window")
        return moment
