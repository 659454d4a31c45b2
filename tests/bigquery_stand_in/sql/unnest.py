"""UNNEST in FROM: a subquery, because DuckDB has neither WITH OFFSET nor the fields of an array's
structs as columns.

    UNNEST(xs) AS x WITH OFFSET AS o
    ->  (SELECT UNNEST(xs) AS x, GENERATE_SUBSCRIPTS(xs, 1) - 1 AS o) AS x

    UNNEST(rows) AS r, when the elements are structs
    ->  (SELECT UNNEST(rows, max_depth => 2)) AS r

Source: https://cloud.google.com/bigquery/docs/reference/standard-sql/query-syntax#unnest_operator
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlglot import exp

from tests.bigquery_stand_in.fields import Field
from tests.bigquery_stand_in.sql.rewrites import function

DEFAULT_OFFSET = "offset"


def rewrite_unnest(
    tree: exp.Expression, parameters: Mapping[str, Field], columns: Iterable[Field]
) -> None:
    """In place. parameters, columns: where the type of an array is looked up by name."""
    arrays = {field["name"].lower(): field for field in _with_nested(columns)}
    for node in list(tree.find_all(exp.Unnest)):
        if isinstance(node.parent, exp.From | exp.Join):
            if isinstance(node.parent, exp.Join):
                _join_on_true(node.parent)
            node.replace(_subquery(node, _has_structs(node.expressions[0], parameters, arrays)))


def _subquery(node: exp.Unnest, structs: bool) -> exp.Subquery:
    array = node.expressions[0]
    alias = node.args.get("alias")
    name = (
        alias.columns[0].name
        if alias and alias.columns
        else (alias.name if alias and alias.name else "_unnest")
    )
    if structs:
        elements: exp.Expression = function(
            "UNNEST",
            array.copy(),
            exp.Kwarg(this=exp.var("max_depth"), expression=exp.Literal.number(2)),
        )
    else:
        elements = exp.alias_(function("UNNEST", array.copy()), name, quoted=True)
    select = exp.Select(expressions=[elements])
    if offset := node.args.get("offset"):
        # sqlglot puts the name of WITH OFFSET AS o here, and True when it has none.
        offset_name = offset.name if isinstance(offset, exp.Identifier) else DEFAULT_OFFSET
        position = exp.Sub(
            this=function("GENERATE_SUBSCRIPTS", array.copy(), exp.Literal.number(1)),
            expression=exp.Literal.number(1),
        )
        select.append("expressions", exp.alias_(position, offset_name, quoted=True))
    return exp.Subquery(
        this=select, alias=exp.TableAlias(this=exp.to_identifier(name, quoted=True))
    )


def _join_on_true(join: exp.Join) -> None:
    if join.args.get("kind") != "CROSS" and not join.args.get("on") and not join.args.get("using"):
        join.set("on", exp.true())


def _has_structs(
    array: exp.Expression, parameters: Mapping[str, Field], arrays: Mapping[str, Field]
) -> bool:
    if isinstance(array, exp.Paren):
        return _has_structs(array.this, parameters, arrays)
    if isinstance(array, exp.Parameter):
        return parameters.get(array.name.lower(), {}).get("type") == "RECORD"
    if isinstance(array, exp.Column):
        return arrays.get(array.name.lower(), {}).get("type") == "RECORD"
    if isinstance(array, exp.Dot):
        return arrays.get(array.expression.name.lower(), {}).get("type") == "RECORD"
    if isinstance(array, exp.Cast):
        return any(
            isinstance(kind, exp.DataType) and kind.this is exp.DataType.Type.STRUCT
            for kind in array.to.expressions
        )
    if isinstance(array, exp.Array):
        first = array.expressions[0] if array.expressions else None
        return isinstance(first, exp.Struct) or (
            isinstance(first, exp.Select) and first.args.get("kind") == "STRUCT"
        )
    return False


def _with_nested(columns: Iterable[Field]) -> Iterable[Field]:
    for column in columns:
        if column["mode"] == "REPEATED":
            yield column
        yield from _with_nested(column.get("fields", ()))
