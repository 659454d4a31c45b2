"""Tables and views as resources: new ones, and the changes of their columns that BigQuery allows.

Source: https://cloud.google.com/bigquery/docs/managing-table-schemas
"""

from __future__ import annotations

from typing import Any

from tests.bigquery_stand_in.errors import duplicate, invalid, not_found
from tests.bigquery_stand_in.fields import Field, canonical, duckdb_column, from_duckdb
from tests.bigquery_stand_in.sql.googlesql import parse
from tests.bigquery_stand_in.sql.transpile import Transpiler
from tests.bigquery_stand_in.warehouse import Table, Warehouse


def new_table(warehouse: Warehouse, dataset: str, name: str, resource: dict[str, Any]) -> Table:
    """Not yet created. Raises RestFailure for unknown types, columns that repeat or a partition
    column that is not there.
    """
    fields = [canonical(field) for field in (resource.get("schema") or {}).get("fields", ())]
    names = [field["name"].lower() for field in fields]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise invalid(f"Duplicate field name {repeated[0]} in the schema of {dataset}.{name}")
    partitioning = resource.get("timePartitioning") or {}
    used = [partitioning["field"]] if "field" in partitioning else []
    used += (resource.get("clustering") or {}).get("fields", ())
    for column in used:
        if column.lower() not in names:
            raise invalid(
                "The field specified for partitioning or clustering cannot be found in the schema:"
                f" {column}"
            )
    now = str(int(warehouse.clock().timestamp() * 1000))
    kept = {
        key: resource[key]
        for key in ("description", "timePartitioning", "clustering", "view", "labels")
        if resource.get(key)
    }
    return Table(
        dataset,
        name,
        {**kept, "schema": {"fields": fields}, "creationTime": now, "lastModifiedTime": now},
    )


def insert_table(warehouse: Warehouse, dataset: str, name: str, resource: dict[str, Any]) -> Table:
    """tables.insert. Raises RestFailure: notFound for the dataset, duplicate for the table."""
    with warehouse.writing:
        if dataset not in warehouse.datasets:
            raise not_found(f"Dataset {warehouse.project}:{dataset}")
        if (dataset, name) in warehouse.tables:
            raise duplicate(f"Table {warehouse.project}:{dataset}.{name}")
        select, described = None, resource
        if resource.get("view"):
            select, fields = view_columns(warehouse, resource["view"]["query"])
            described = {**resource, "schema": {"fields": fields}}
        table = new_table(warehouse, dataset, name, described)
        if select is None and not table.fields:
            raise invalid(f"Schema is missing for {dataset}.{name}")
        with warehouse.transaction() as cursor:
            warehouse.create_table(cursor, table, select)
        warehouse.register(table)
    return table


def view_columns(warehouse: Warehouse, query: str) -> tuple[str, list[Field]]:
    """(DuckDB's SQL, fields) of a view's GoogleSQL; as a view has no default dataset, its tables
    must be qualified.
    """
    sql = Transpiler(warehouse, None).transpile(parse(query)).sql
    with warehouse.cursor() as cursor:
        cursor.execute(f"SELECT * FROM ({sql}) LIMIT 0")
        return sql, [from_duckdb(column[0], column[1]) for column in cursor.description or ()]


def patch_table(warehouse: Warehouse, table: Table, change: dict[str, Any]) -> None:
    """tables.patch: description, new columns, relaxed modes, descriptions of columns, a view's
    query. Raises RestFailure for the rest.
    """
    with warehouse.writing:
        if schema := change.get("schema"):
            _change_schema(warehouse, table, [canonical(field) for field in schema["fields"]])
        kept = {key: change[key] for key in ("description", "labels") if key in change}
        with warehouse.transaction() as cursor:
            if change.get("view"):
                sql, fields = view_columns(warehouse, change["view"]["query"])
                kept.update(view=change["view"], schema={"fields": fields})
                cursor.execute(f"CREATE OR REPLACE VIEW {table.sql_name} AS {sql}")
            table.resource.update(
                kept, lastModifiedTime=str(int(warehouse.clock().timestamp() * 1000))
            )
            warehouse.save_resource(cursor, table)


def add_columns(warehouse: Warehouse, table: Table, added: list[Field]) -> None:
    """New columns are NULLABLE or REPEATED: rows without them exist."""
    present = {field["name"].lower() for field in table.fields}
    for field in added:
        if field["mode"] == "REQUIRED":
            raise invalid(
                f"Cannot add required fields to an existing schema. (field: {field['name']})"
            )
        if field["name"].lower() in present:
            raise invalid(f"Column already exists: {field['name']}")
    with warehouse.writing, warehouse.transaction() as cursor:
        for field in added:
            cursor.execute(f"ALTER TABLE {table.sql_name} ADD COLUMN {duckdb_column(field)}")
        table.resource["schema"] = {"fields": table.fields + added}
        table.schema_version += 1
        warehouse.save_resource(cursor, table)


def _change_schema(warehouse: Warehouse, table: Table, wanted: list[Field]) -> None:
    known = {field["name"].lower(): field for field in table.fields}
    given = {field["name"].lower(): field for field in wanted}
    mismatch = (
        f"Provided Schema does not match Table {warehouse.project}:{table.dataset}.{table.name}."
    )
    if lost := [field["name"] for name, field in known.items() if name not in given]:
        raise invalid(f"{mismatch} Field {lost[0]} is missing in new schema")
    relaxed = []
    for name, field in known.items():
        new = given[name]
        if _shape(new) != _shape(field):
            raise invalid(
                f"{mismatch} Field {field['name']} has changed type from {field['type']} to"
                f" {new['type']}"
            )
        if new["mode"] != field["mode"]:
            if (field["mode"], new["mode"]) != ("REQUIRED", "NULLABLE"):
                raise invalid(
                    f"{mismatch} Field {field['name']} has changed mode from {field['mode']} to"
                    f" {new['mode']}"
                )
            relaxed.append(field["name"])
    if table.view_query is None:
        add_columns(warehouse, table, [field for name, field in given.items() if name not in known])
        with warehouse.transaction() as cursor:
            for name in relaxed:
                cursor.execute(f'ALTER TABLE {table.sql_name} ALTER COLUMN "{name}" DROP NOT NULL')
    table.resource["schema"] = {"fields": [given[field["name"].lower()] for field in table.fields]}


def _shape(field: Field) -> tuple[str, object]:
    return field["type"], [
        (child["name"].lower(), child["mode"], _shape(child)) for child in field.get("fields", ())
    ]
