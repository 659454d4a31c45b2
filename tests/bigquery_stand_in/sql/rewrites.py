"""Where GoogleSQL and sqlglot's DuckDB differ in meaning: small rewrites of the tree, one function
each.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from sqlglot import exp

from tests.bigquery_stand_in.errors import invalid_query

_NAIVE: Final = exp.DataType.build("TIMESTAMP", dialect="duckdb")
_NUMERIC: Final = exp.DataType.build("DECIMAL(38,9)", dialect="duckdb")
_BIGINT: Final = exp.DataType.build("BIGINT", dialect="duckdb")
_DOUBLE: Final = exp.DataType.build("DOUBLE", dialect="duckdb")
_TYPE: Final = exp.DataType.Type
_STRINGS: Final = {_TYPE.TEXT, _TYPE.VARCHAR}
_BYTES: Final = {_TYPE.BINARY, _TYPE.VARBINARY, _TYPE.BLOB}
_TIMES: Final = {_TYPE.TIMESTAMPTZ, _TYPE.TIMESTAMP, _TYPE.DATETIME, _TYPE.TIMESTAMPLTZ}


def function(name: str, *arguments: Any) -> exp.Anonymous:
    """A call that DuckDB gets as it stands here."""
    return exp.Anonymous(this=name, expressions=list(arguments))


def rewrite(tree: exp.Expression, now: datetime) -> exp.Expression:
    """now: what CURRENT_TIMESTAMP and CURRENT_DATE mean; queries follow the injected clock."""
    for change in _CHANGES:
        # From the leaves up: `transform` of sqlglot leaves out what is below a node that it has
        # replaced.
        for node in reversed(list(tree.dfs())):
            changed = change(node, now)
            if node is tree:
                tree = changed
            elif changed is not node:
                node.replace(changed)
    return tree


def _times(node: exp.Expression, now: datetime) -> exp.Expression:
    if isinstance(node, exp.CurrentTimestamp):
        return exp.Cast(
            this=exp.Literal.string(now.strftime("%Y-%m-%d %H:%M:%S.%f")), to=_NAIVE.copy()
        )
    if isinstance(node, exp.CurrentDate):
        return exp.Cast(
            this=exp.Literal.string(now.strftime("%Y-%m-%d")), to=exp.DataType.build("DATE")
        )
    if isinstance(node, exp.TimestampDiff):
        # TIMESTAMP_DIFF counts whole intervals; DuckDB's date_diff, which sqlglot takes, counts the
        # borders between.
        return function(
            "date_sub", exp.Literal.string(node.text("unit").lower()), node.expression, node.this
        )
    if isinstance(node, exp.UnixSeconds):
        return function("bq_unix_seconds", node.this)
    if isinstance(node, exp.UnixToTime):
        scale = {"0": "seconds", "3": "millis", "6": "micros"}.get(node.text("scale") or "0")
        return function(f"bq_timestamp_{scale}", node.this)
    if isinstance(node, exp.Timestamp) and not node.args.get("zone"):
        return function("bq_timestamp", node.this)
    return node


def _casts(node: exp.Expression, now: datetime) -> exp.Expression:
    if not isinstance(node, exp.Cast):
        return node
    kind = node.to.this
    if kind in _TIMES:
        return _safe(node, function("bq_timestamp", node.this))
    if kind in _STRINGS:
        return _safe(node, function("bq_string", node.this))
    if kind in _BYTES:
        return _safe(node, function("bq_bytes", node.this))
    return node


def _safe(cast: exp.Cast, call: exp.Anonymous) -> exp.Expression:
    return function("TRY", call) if isinstance(cast, exp.TryCast) else call


def _types(node: exp.Expression, now: datetime) -> exp.Expression:
    if isinstance(node, exp.DataType):
        if node.this in _TIMES:
            return _NAIVE.copy()
        if node.this in (_TYPE.DECIMAL, _TYPE.BIGDECIMAL) and (
            node.this is _TYPE.BIGDECIMAL or not node.expressions
        ):
            return _NUMERIC.copy()
    return node


def _strings(node: exp.Expression, now: datetime) -> exp.Expression:
    if isinstance(node, exp.Substring):
        return function(
            "bq_substr",
            *(
                part
                for part in (node.this, node.args.get("start"), node.args.get("length"))
                if part is not None
            ),
        )
    if isinstance(node, exp.Left):
        return function("bq_left", node.this, node.expression)
    if isinstance(node, exp.Right):
        return function("bq_right", node.this, node.expression)
    if isinstance(node, exp.GroupConcat) and isinstance(node.args.get("separator"), exp.ByteString):
        # STRING_AGG of BYTES: the separator has the type of the values.
        aggregate = node.copy()
        value = aggregate.this.this if isinstance(aggregate.this, exp.Order) else aggregate.this
        target = value.this if isinstance(value, exp.Distinct) else value
        target.replace(exp.Hex(this=target.copy()))
        aggregate.set("separator", exp.Hex(this=aggregate.args["separator"]))
        return exp.Unhex(this=aggregate)
    if isinstance(node, exp.Format):
        return _format(node)
    return node


def _format(node: exp.Format) -> exp.Expression:
    pattern = node.this
    if not isinstance(pattern, exp.Literal) or not re.fullmatch(
        r"(?:[^%]|%%|%0?\d*[dsxX]|%(?:\.\d+)?f)*", pattern.this
    ):
        raise invalid_query(
            "the stand-in knows FORMAT with %s, %d, %x, %f and a constant pattern only"
        )
    return function("printf", pattern, *node.expressions)


def _aggregates(node: exp.Expression, now: datetime) -> exp.Expression:
    if isinstance(node, exp.ArrayAgg):
        inner = node.this
        if isinstance(inner, exp.Limit):
            limit = inner.expression
            return function(
                "list_slice", exp.ArrayAgg(this=inner.this), exp.Literal.number(1), limit
            )
    if isinstance(node, exp.IgnoreNulls) and isinstance(node.this, exp.ArrayAgg):
        value = node.this.find(exp.Column, exp.Literal) or node.this.this
        return exp.Filter(
            this=node.this,
            expression=exp.Where(
                this=exp.Not(this=exp.Is(this=value.copy(), expression=exp.Null()))
            ),
        )
    if isinstance(node, exp.SafeFunc):
        return function("TRY", node.this)
    if isinstance(node, exp.Div) and not isinstance(node.parent, exp.If | exp.SafeDivide):
        return function("bq_divide", node.this, node.expression)
    return node


def _updates(node: exp.Expression, now: datetime) -> exp.Expression:
    """UPDATE t SET t.x = ...: DuckDB wants the bare name."""
    if isinstance(node, exp.Update):
        changed = (
            node.this if isinstance(node.this, exp.Table) else node.find_ancestor(exp.Merge).this
        )
        for assignment in node.expressions:
            target = assignment.this
            if isinstance(target, exp.Column) and target.table.lower() in (
                changed.alias.lower(),
                changed.name.lower(),
            ):
                target.set("table", None)
    return node


_WIDENED_PARENTS: Final = (
    exp.Alias, exp.Add, exp.Sub, exp.Mul, exp.Mod, exp.IntDiv, exp.BitwiseLeftShift,
    exp.BitwiseRightShift, exp.BitwiseAnd, exp.BitwiseOr, exp.BitwiseXor, exp.Neg, exp.Coalesce,
    exp.If, exp.Case, exp.Array, exp.PropertyEQ, exp.Struct, exp.Sum, exp.Tuple, exp.Paren,
)  # fmt: skip


def _literals(node: exp.Expression, now: datetime) -> exp.Expression:
    """INT64 is the only integer type of GoogleSQL: DuckDB's literals are 32 bits wide and
    2000000000 * 2 would overflow.
    """
    if (
        not isinstance(node, exp.Literal)
        or node.is_string
        or isinstance(node.parent, exp.DataTypeParam)
    ):
        return node
    projected = isinstance(node.parent, exp.Select) and node.arg_key == "expressions"
    if node.is_int and (projected or isinstance(node.parent, _WIDENED_PARENTS)):
        return exp.Cast(this=node.copy(), to=_BIGINT.copy())
    if projected or isinstance(node.parent, exp.Alias):
        return exp.Cast(this=node.copy(), to=_DOUBLE.copy())
    return node


_CHANGES: Final[tuple[Callable[[exp.Expression, datetime], exp.Expression], ...]] = (
    _times, _strings, _casts, _types, _aggregates, _literals, _updates,
)  # fmt: skip
