"""Which partitions of a table a statement reads, as far as its conditions say so plainly.

A condition prunes that stands alone or beside AND in WHERE, or in ON of a MERGE, and compares the
bare partition column with an expression of constants and parameters. Sources:
https://cloud.google.com/bigquery/docs/querying-partitioned-tables#best_practices_for_partition_pruning,
https://cloud.google.com/bigquery/docs/using-dml-with-partitioned-tables#pruning_partitions_when_using_a_merge_statement
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlglot import exp

from tests.bigquery_stand_in.warehouse import Table

_KEEPS_ORDER = (exp.EQ, exp.GT, exp.GTE, exp.LT, exp.LTE)
_WIDENED = {exp.GT: exp.GTE, exp.LT: exp.LTE}
_TURNED = {exp.GT: exp.LT, exp.GTE: exp.LTE, exp.LT: exp.GT, exp.LTE: exp.GTE, exp.EQ: exp.EQ}


@dataclass(frozen=True)
class Scan:
    """One mention of a table. partitions: DuckDB's condition for rows of the partitions that are
    read, None for all of them; parameters: the names in it.
    """

    table: Table
    partitions: str | None
    parameters: frozenset[str]


def scan_of(node: exp.Table, table: Table) -> Scan:
    """node: within a statement that is DuckDB's already, but for its text."""
    partitioning = table.resource.get("timePartitioning") or {}
    column = partitioning.get("field")
    if column is None or partitioning.get("type", "DAY") != "DAY":
        return Scan(table, None, frozenset())
    names = {"", node.alias_or_name.lower()}
    found = [
        condition
        for part in _conditions(node)
        if (condition := _of_partitions(part, column.lower(), names)) is not None
    ]
    if not found:
        return Scan(table, None, frozenset())
    parameters = {
        parameter.name for condition in found for parameter in condition.find_all(exp.Parameter)
    }
    text = " AND ".join(condition.sql(dialect="duckdb") for condition in found)
    return Scan(table, text, frozenset(parameters))


def _conditions(node: exp.Table) -> Iterator[exp.Expression]:
    """What must hold for each row of the table that matters."""
    parent = node.parent
    if isinstance(parent, exp.From):
        parent = parent.parent
    if isinstance(parent, exp.Merge) and parent.this is node:
        yield from (
            parent.args["on"].flatten()
            if isinstance(parent.args["on"], exp.And)
            else [parent.args["on"]]
        )
    elif isinstance(parent, exp.Select | exp.Update | exp.Delete) and parent.args.get("where"):
        condition = parent.args["where"].this
        yield from condition.flatten() if isinstance(condition, exp.And) else [condition]


def _of_partitions(
    condition: exp.Expression, column: str, names: set[str]
) -> exp.Expression | None:
    """The condition on days instead of moments; None where it says nothing of partitions."""
    condition = condition.unnest()
    if isinstance(condition, exp.In) and _is(condition.this, column, names):
        values = condition.expressions
        if values and not any(map(_reads, values)):
            return exp.In(this=_day(condition.this), expressions=[_day(value) for value in values])
        return None
    if not isinstance(condition, _KEEPS_ORDER):
        return None
    kind, left, right = type(condition), condition.this, condition.expression
    if _is(right, column, names):
        kind, left, right = _TURNED[kind], right, left
    if not _is(left, column, names) or _reads(right):
        return None
    return _WIDENED.get(kind, kind)(this=_day(left), expression=_day(right))


def _is(node: exp.Expression, column: str, names: set[str]) -> bool:
    return (
        isinstance(node, exp.Column) and node.name.lower() == column and node.table.lower() in names
    )


def _reads(node: exp.Expression) -> bool:
    return node.find(exp.Column, exp.Query) is not None


def _day(node: exp.Expression) -> exp.Expression:
    value = node.copy()
    if isinstance(value, exp.Column):
        value.set("table", None)
    return exp.Anonymous(this="date_trunc", expressions=[exp.Literal.string("day"), value])
