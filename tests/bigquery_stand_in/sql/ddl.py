"""CREATE TABLE, CREATE VIEW and ALTER TABLE ADD COLUMN: from the tree to the resource of a table.

Source: https://cloud.google.com/bigquery/docs/reference/standard-sql/data-definition-language
"""

from __future__ import annotations

from typing import Any, Final

from sqlglot import exp

from tests.bigquery_stand_in.errors import invalid_query
from tests.bigquery_stand_in.fields import Field

_KIND = exp.DataType.Type
_TYPES: Final = {
    _KIND.TEXT: "STRING",
    _KIND.VARCHAR: "STRING",
    _KIND.BINARY: "BYTES",
    _KIND.VARBINARY: "BYTES",
    _KIND.BIGINT: "INTEGER",
    _KIND.INT: "INTEGER",
    _KIND.SMALLINT: "INTEGER",
    _KIND.TINYINT: "INTEGER",
    _KIND.DOUBLE: "FLOAT",
    _KIND.BOOLEAN: "BOOLEAN",
    _KIND.DECIMAL: "NUMERIC",
    _KIND.BIGDECIMAL: "BIGNUMERIC",
    _KIND.TIMESTAMPTZ: "TIMESTAMP",
    _KIND.DATE: "DATE",
    _KIND.JSON: "JSON",
}


def column_field(definition: exp.ColumnDef) -> Field:
    """The field of a column definition, with NOT NULL and OPTIONS(description=...)."""
    field = _typed(definition.name, definition.args["kind"])
    for constraint in definition.args.get("constraints") or ():
        if isinstance(constraint.kind, exp.NotNullColumnConstraint):
            field["mode"] = "REQUIRED"
        elif isinstance(constraint.kind, exp.Properties):
            field.update(_options(constraint.kind.expressions))
    return field


def _typed(name: str, kind: exp.DataType) -> Field:
    if kind.this is _KIND.ARRAY:
        return {**_typed(name, kind.expressions[0]), "mode": "REPEATED"}
    if kind.this is _KIND.STRUCT:
        return {
            "name": name,
            "type": "RECORD",
            "mode": "NULLABLE",
            "fields": [column_field(child) for child in kind.expressions],
        }
    known = _TYPES.get(kind.this)
    if known is None:
        raise invalid_query(f"the stand-in has no type {kind.sql('bigquery')} (column {name})")
    return {"name": name, "type": known, "mode": "NULLABLE"}


def table_resource(create: exp.Create) -> dict[str, Any]:
    """What PARTITION BY, CLUSTER BY and OPTIONS say; columns are not in it."""
    resource: dict[str, Any] = {}
    properties = create.args.get("properties")
    for clause in properties.expressions if properties else ():
        if isinstance(clause, exp.PartitionedByProperty):
            resource["timePartitioning"] = {"type": "DAY", "field": _partition_column(clause.this)}
        elif isinstance(clause, exp.ClusterProperty):
            resource["clustering"] = {"fields": [column.name for column in clause.expressions]}
        elif isinstance(clause, exp.Property):
            resource.update(_options([clause]))
    return resource


def _partition_column(expression: exp.Expression) -> str:
    column = expression if isinstance(expression, exp.Column) else expression.find(exp.Column)
    if column is None:
        raise invalid_query(
            "PARTITION BY must be on a column, DATE(column) or TIMESTAMP_TRUNC(column, DAY)"
        )
    return str(column.name)


def _options(properties: list[exp.Expression]) -> dict[str, Any]:
    known = {}
    for option in properties:
        name = option.this.name.lower()
        if name == "description":
            known["description"] = option.args["value"].name
        elif name not in ("require_partition_filter", "labels", "friendly_name"):
            raise invalid_query(f"the stand-in does not know the option {name}")
    return known
