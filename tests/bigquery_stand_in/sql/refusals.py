"""Queries that DuckDB would run and BigQuery refuses, so that a test fails where production would.

Not modelled: GoogleSQL's types are stricter (no comparison of STRING with INT64, no implicit cast
of STRING), and some correlated subqueries are refused although they have an equality. Source:
https://cloud.google.com/bigquery/docs/reference/standard-sql/query-syntax, .../subqueries, and the
service's own messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlglot import exp

from tests.bigquery_stand_in.errors import RestFailure, invalid_query
from tests.bigquery_stand_in.fields import Field

_EQUALITY = "without a condition that is an equality of fields from both sides of the join."


def refuse(statement: exp.Expression, fields: Iterable[Field]) -> None:
    """Raises RestFailure (invalidQuery). fields: columns of all tables that the statement reads."""
    known = {field["name"].lower() for field in fields}
    for select in statement.find_all(exp.Select):
        _refuse_syntax(select)
        _refuse_own_aliases(select, statement, known)
        for join in select.args.get("joins") or ():
            _refuse_outer_join_without_equality(join)
        if isinstance(select.parent, exp.Exists) or (
            isinstance(select.parent, exp.Subquery) and _is_value(select.parent)
        ):
            _refuse_correlation_without_equality(select)


def _refuse_syntax(select: exp.Select) -> None:
    distinct = select.args.get("distinct")
    if distinct is not None and distinct.args.get("on") is not None:
        raise invalid_query("Syntax error: DISTINCT ON is not GoogleSQL")
    if found := select.find(exp.TableSample, exp.Columns):
        raise invalid_query(f"Syntax error: {type(found).__name__} is not supported")
    limit = select.args.get("limit")
    if limit is not None and limit.args.get("limit_options"):
        raise invalid_query("Syntax error: LIMIT takes a number of rows")
    order = select.args.get("order")
    for ordered in order.expressions if order else ():
        if (
            isinstance(ordered.this, exp.Column)
            and ordered.this.name.upper() == "ALL"
            and not ordered.this.this.quoted
        ):
            raise invalid_query("Syntax error: Unexpected keyword ALL in ORDER BY")


def _refuse_own_aliases(select: exp.Select, statement: exp.Expression, known: set[str]) -> None:
    """A name that SELECT gives is not visible in WHERE, in ON and to its neighbours; DuckDB would
    take it there.
    """
    own = {column.alias.lower() for column in select.expressions if isinstance(column, exp.Alias)}
    own -= known | _names_from_elsewhere(select, statement)
    join_conditions = [join.args.get("on") for join in select.args.get("joins") or ()]
    for part in (*select.expressions, select.args.get("where"), *join_conditions):
        for column in _own_columns(part) if part is not None else ():
            if not column.table and column.name.lower() in own:
                raise invalid_query(f"Unrecognized name: {column.name}")


def _names_from_elsewhere(select: exp.Select, statement: exp.Expression) -> set[str]:
    names = set()
    for other in statement.find_all(exp.Select):
        if other is not select:
            names |= {column.alias_or_name.lower() for column in other.expressions}
    for source in statement.find_all(exp.Unnest, exp.CTE):
        names |= (
            {identifier.name.lower() for identifier in source.find_all(exp.Identifier)}
            if isinstance(source, exp.Unnest)
            else set()
        )
        alias = source.args.get("alias")
        names |= {column.name.lower() for column in alias.columns} if alias else set()
    return names


def _own_columns(part: exp.Expression) -> Iterator[exp.Column]:
    for node in part.walk(prune=lambda node: isinstance(node, exp.Query)):
        if isinstance(node, exp.Column):
            yield node


def _refuse_outer_join_without_equality(join: exp.Join) -> None:
    side, condition = join.args.get("side"), join.args.get("on")
    if join.args.get("method") == "NATURAL":
        raise invalid_query("Syntax error: NATURAL JOIN is not GoogleSQL")
    if not side or condition is None or isinstance(join.this, exp.Unnest):
        return
    right = join.this.alias_or_name.lower()
    if not any(_joins(part, {right}) for part in _conjuncts(condition)):
        raise invalid_query(f"{side} OUTER JOIN cannot be used {_EQUALITY}")


def _refuse_correlation_without_equality(select: exp.Select) -> None:
    inner = {
        source.alias_or_name.lower() for source in select.find_all(exp.Table, exp.Subquery, exp.CTE)
    }
    for unnest in select.find_all(exp.Unnest):
        alias = unnest.args.get("alias")
        inner |= (
            {identifier.name.lower() for identifier in alias.find_all(exp.Identifier)}
            if alias
            else set()
        )
    source = select.args.get("from_")
    where = select.args.get("where")
    outer = [
        column
        for column in select.find_all(exp.Column)
        if column.table and column.table.lower() not in inner
    ]
    if not outer or source is None or isinstance(source.this, exp.Unnest):
        return
    if where is None or not any(_joins(part, inner) for part in _conjuncts(where.this)):
        raise _not_decorrelated(select)


def _not_decorrelated(select: exp.Select) -> RestFailure:
    if isinstance(select.parent, exp.Exists):
        kind = "ANTISEMI" if isinstance(select.parent.parent, exp.Not) else "SEMI"
        return invalid_query(f"LEFT {kind} JOIN cannot be used {_EQUALITY}")
    return invalid_query(
        "Correlated subqueries that reference other tables are not supported unless they can be"
        " de-correlated"
    )


def _is_value(subquery: exp.Subquery) -> bool:
    if isinstance(subquery.parent, exp.Select):
        return bool(subquery.arg_key == "expressions")
    return not isinstance(
        subquery.parent,
        exp.From | exp.Join | exp.CTE | exp.Query | exp.Merge | exp.Insert | exp.Create | None,
    )


def _conjuncts(condition: exp.Expression) -> list[exp.Expression]:
    return list(condition.flatten()) if isinstance(condition, exp.And) else [condition]


def _joins(condition: exp.Expression, inner: set[str]) -> bool:
    """Whether it is an equality with columns of `inner` on one side and others on the other; names
    without a table may be either.
    """
    condition = condition.unnest()
    if not isinstance(condition, exp.EQ):
        return False
    left, right = (
        {column.table.lower() for column in side.find_all(exp.Column)}
        for side in (condition.this, condition.expression)
    )
    sides = [(left, right), (right, left)]
    return any(
        side and other_side and (side & (inner | {""})) and (other_side - inner)
        for side, other_side in sides
    )
