"""Running one statement: what it answers, and what it changes, atomically and one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
from sqlglot import exp

from tests.bigquery_stand_in import limits
from tests.bigquery_stand_in.billing import bytes_read, check_bytes_billed
from tests.bigquery_stand_in.errors import RestFailure, duplicate, invalid_query, not_found
from tests.bigquery_stand_in.fields import Field, from_duckdb
from tests.bigquery_stand_in.rest.parameters import Parameter
from tests.bigquery_stand_in.sql.coercion import check_columns
from tests.bigquery_stand_in.sql.ddl import column_field, table_resource
from tests.bigquery_stand_in.sql.googlesql import named_positional_parameters, parse, resolve
from tests.bigquery_stand_in.sql.transpile import Transpiled, Transpiler
from tests.bigquery_stand_in.tables import add_columns, new_table
from tests.bigquery_stand_in.warehouse import Table, Warehouse


@dataclass(frozen=True)
class Query:
    """What a job is asked to run. maximum_bytes_billed: None for no limit."""

    sql: str
    default_dataset: str | None = None
    parameters: Sequence[Parameter] = ()
    maximum_bytes_billed: int | None = None
    dry_run: bool = False


@dataclass
class Outcome:
    """What a statement has answered: rows with their fields, or affected rows; kind is BigQuery's
    statementType.
    """

    kind: str
    fields: list[Field] = field(default_factory=list)
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    affected: int | None = None
    bytes_processed: int = 0
    bytes_billed: int = 0


class Statements:
    """dml_on_fresh_rows: allow UPDATE, DELETE, MERGE and TRUNCATE on tables that the Write API
    wrote to within the last 30 minutes.
    """

    def __init__(self, warehouse: Warehouse, dml_on_fresh_rows: bool = False) -> None:
        self._warehouse = warehouse
        self._dml_on_fresh_rows = dml_on_fresh_rows

    def run(self, query: Query) -> Outcome:
        """Raises RestFailure; then nothing has changed."""
        statement = parse(named_positional_parameters(query.sql))
        transpiler = Transpiler(self._warehouse, query.default_dataset, query.parameters)
        try:
            if isinstance(statement, exp.Query) and statement.find(exp.Version) is None:
                return self._select(statement, transpiler, query)
            with self._warehouse.writing:
                if isinstance(statement, exp.Query):
                    # No table may change between finding the rows of a moment and reading them.
                    return self._select(statement, transpiler, query)
                if isinstance(statement, exp.Create):
                    return self._create(statement, transpiler, query)
                if isinstance(statement, exp.Alter):
                    return self._alter(statement, transpiler, query)
                if isinstance(statement, exp.Drop):
                    return self._drop(statement, transpiler, query)
                return self._change_rows(statement, transpiler, query)
        except duckdb.Error as error:
            raise invalid_query(str(error)) from error

    def _select(self, statement: exp.Expression, transpiler: Transpiler, query: Query) -> Outcome:
        transpiled = transpiler.transpile(statement)
        with self._warehouse.cursor() as cursor:
            outcome = self._measured(cursor, "SELECT", transpiled, query)
            if query.dry_run:
                _fields(
                    cursor,
                    f"SELECT * FROM ({transpiled.sql}) LIMIT 0",
                    _values(transpiled, query),
                    outcome,
                )
                return outcome
            _fields(cursor, transpiled.sql, _values(transpiled, query), outcome)
            outcome.rows = cursor.fetchall()
        return outcome

    def _change_rows(
        self, statement: exp.Expression, transpiler: Transpiler, query: Query
    ) -> Outcome:
        target = (
            statement.find(exp.Table)
            if isinstance(statement, exp.TruncateTable)
            else statement.this
        )
        target = target.this if isinstance(target, exp.Schema) else target
        table = transpiler.table(target)
        if table.view_query is not None:
            raise invalid_query(f"{table.name} is a view: its rows cannot be changed")
        kind = {"TruncateTable": "TRUNCATE_TABLE"}.get(
            type(statement).__name__, type(statement).__name__.upper()
        )
        if kind != "INSERT":
            self._check_fresh_rows(table, kind)
        transpiled = transpiler.transpile(statement)
        with self._warehouse.change(table) as cursor:
            outcome = self._measured(cursor, kind, transpiled, query)
            if query.dry_run:
                cursor.execute(f"EXPLAIN {transpiled.sql}", _values(transpiled, query))
                return outcome
            if isinstance(statement, exp.Insert):
                self._check_inserted(cursor, statement, transpiler, table, query)
            before = (
                cursor.execute(f"SELECT COUNT(*) FROM {table.sql_name}").fetchall()[0][0]
                if kind == "TRUNCATE_TABLE"
                else 0
            )
            ((affected,),) = cursor.execute(transpiled.sql, _values(transpiled, query)).fetchall()
        outcome.affected = int(before if kind == "TRUNCATE_TABLE" else affected)
        return outcome

    def _check_inserted(
        self,
        cursor: duckdb.DuckDBPyConnection,
        insert: exp.Insert,
        transpiler: Transpiler,
        table: Table,
        query: Query,
    ) -> None:
        """INSERT with a query; of VALUES each row is checked by DuckDB alone."""
        if not isinstance(insert.expression, exp.Query):
            return
        named = (
            [column.name.lower() for column in insert.this.expressions]
            if isinstance(insert.this, exp.Schema)
            else None
        )
        known = {known["name"].lower(): known for known in table.fields}
        if named is not None and (unknown := [name for name in named if name not in known]):
            raise invalid_query(
                f"Column {unknown[0]} is not present in table {table.dataset}.{table.name}"
            )
        select = transpiler.transpile(insert.expression)
        cursor.execute(f"SELECT * FROM ({select.sql}) LIMIT 0", _values(select, query))
        check_columns(cursor.description or (), [known[name] for name in named or known])

    def _create(self, create: exp.Create, transpiler: Transpiler, query: Query) -> Outcome:
        kind = create.args["kind"].upper()
        node = create.this.this if isinstance(create.this, exp.Schema) else create.this
        dataset, name = resolve(node, self._warehouse.project, query.default_dataset)
        outcome = Outcome(
            f"CREATE_{kind}" + ("_AS_SELECT" if kind == "TABLE" and create.expression else "")
        )
        if dataset not in self._warehouse.datasets:
            raise not_found(f"Dataset {self._warehouse.project}:{dataset}")
        existing = self._warehouse.tables.get((dataset, name))
        if existing is not None and not create.args.get("replace"):
            if create.args.get("exists"):
                return outcome
            raise duplicate(f"Table {self._warehouse.project}:{dataset}.{name}")
        resource, transpiled = table_resource(create), None
        if isinstance(create.this, exp.Schema):
            resource["schema"] = {
                "fields": [column_field(column) for column in create.this.expressions]
            }
        if create.expression:
            transpiled = transpiler.transpile(create.expression)
            with self._warehouse.cursor() as cursor:
                _fields(
                    cursor,
                    f"SELECT * FROM ({transpiled.sql}) LIMIT 0",
                    _values(transpiled, query),
                    outcome,
                )
                if "schema" in resource:
                    check_columns(cursor.description or (), resource["schema"]["fields"])
            resource.setdefault("schema", {"fields": outcome.fields})
        if kind == "VIEW":
            resource["view"] = {"query": create.expression.sql("bigquery"), "useLegacySql": False}
        outcome.fields = []
        table = new_table(self._warehouse, dataset, name, resource)
        with self._warehouse.transaction() as cursor:
            if transpiled is not None:
                outcome.bytes_processed = bytes_read(
                    cursor, transpiled.scans, transpiled.columns, _values(transpiled, query)
                )
                outcome.bytes_billed = check_bytes_billed(
                    outcome.bytes_processed, len(transpiled.scans), query.maximum_bytes_billed
                )
            if query.dry_run:
                return outcome
            if existing is not None and kind == "TABLE":
                cursor.execute(f"DROP TABLE {existing.sql_name}")
            values = _values(transpiled, query) if transpiled else {}
            self._warehouse.create_table(
                cursor, table, transpiled.sql if transpiled else None, values
            )
        self._warehouse.register(table)
        return outcome

    def _alter(self, alter: exp.Alter, transpiler: Transpiler, query: Query) -> Outcome:
        table = transpiler.table(alter.this)
        present = {known["name"].lower() for known in table.fields}
        added = []
        for action in alter.args["actions"]:
            if not isinstance(action, exp.ColumnDef):
                raise invalid_query("the stand-in knows ALTER TABLE ADD COLUMN only")
            if not (action.args.get("exists") and action.name.lower() in present):
                added.append(column_field(action))
        if not query.dry_run:
            add_columns(self._warehouse, table, added)
        return Outcome("ALTER_TABLE")

    def _drop(self, drop: exp.Drop, transpiler: Transpiler, query: Query) -> Outcome:
        outcome = Outcome(f"DROP_{drop.args['kind'].upper()}")
        try:
            table = transpiler.table(drop.find(exp.Table))
        except RestFailure:
            if drop.args.get("exists"):
                return outcome
            raise
        if not query.dry_run:
            self._warehouse.drop_table(table)
        return outcome

    def _check_fresh_rows(self, table: Table, kind: str) -> None:
        streamed = table.last_streamed
        if (
            streamed is None
            or self._dml_on_fresh_rows
            or self._warehouse.clock() - streamed >= limits.DML_AFTER_STREAMING
        ):
            return
        raise invalid_query(
            f"{kind} statement over table {table.dataset}.{table.name} would affect rows in the"
            " streaming buffer, which is not supported"
        )

    def _measured(
        self, cursor: duckdb.DuckDBPyConnection, kind: str, transpiled: Transpiled, query: Query
    ) -> Outcome:
        values = _values(transpiled, query)
        read = bytes_read(cursor, transpiled.scans, transpiled.columns, values)
        if kind in ("UPDATE", "DELETE", "MERGE"):
            read += bytes_read(cursor, transpiled.scans[:1], None, values)
        tables = len({scan.table.sql_name for scan in transpiled.scans})
        return Outcome(
            kind,
            bytes_processed=read,
            bytes_billed=check_bytes_billed(read, tables, query.maximum_bytes_billed),
        )


def _values(transpiled: Transpiled, query: Query) -> dict[str, Any]:
    return {
        parameter.name: parameter.value
        for parameter in query.parameters
        if parameter.name in transpiled.parameters
    }


def _fields(
    cursor: duckdb.DuckDBPyConnection, sql: str, values: dict[str, Any], outcome: Outcome
) -> None:
    cursor.execute(sql, values)
    outcome.fields = [from_duckdb(column[0], column[1]) for column in cursor.description or ()]
