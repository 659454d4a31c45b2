"""GoogleSQL as sqlglot parses it, and only that: what is not BigQuery's SQL must not reach DuckDB
and succeed there.

sqlglot is lenient: it reads other dialects' syntax under any name. So tokens and functions that
GoogleSQL lacks are refused here. Source:
https://cloud.google.com/bigquery/docs/reference/standard-sql/query-syntax
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Final

import sqlglot
from sqlglot import exp
from sqlglot.dialects.bigquery import BigQuery
from sqlglot.errors import SqlglotError
from sqlglot.tokens import Token, TokenType

from tests.bigquery_stand_in.errors import RestFailure, invalid_query
from tests.bigquery_stand_in.limits import MAX_QUERY_BYTES
from tests.bigquery_stand_in.sql.functions import FUNCTIONS

# The generator warns about clauses that DuckDB has no use for (PARTITION BY, OPTIONS); they are
# read from the tree instead.
logging.getLogger("sqlglot").setLevel(logging.ERROR)

_FOREIGN_TOKENS: Final = {
    TokenType.DCOLON: "the cast operator ::",
    TokenType.FILTER: "FILTER",
    TokenType.RETURNING: "RETURNING",
    TokenType.ASOF: "ASOF",
    TokenType.ILIKE: "ILIKE",
    TokenType.ARROW: "->",
    TokenType.DARROW: "->>",
    TokenType.SEMI: "SEMI JOIN",
    TokenType.ANTI: "ANTI JOIN",
    TokenType.L_BRACE: "{",
}

_KEYWORDS: Final = """
ALL AND ANY ARRAY AS ASC ASSERT_ROWS_MODIFIED AT BETWEEN BY CASE CAST COLLATE CONTAINS CREATE CROSS
CUBE CURRENT DEFAULT DEFINE DESC DISTINCT ELSE END ENUM ESCAPE EXCEPT EXCLUDE EXISTS EXTRACT FALSE
FETCH FOLLOWING FOR FROM FULL GROUP GROUPING GROUPS HASH HAVING IF IGNORE IN INNER INTERSECT
INTERVAL INTO IS JOIN LATERAL LEFT LIKE LIMIT LOOKUP MERGE NATURAL NEW NO NOT NULL NULLS OF ON OR
ORDER OUTER OVER PARTITION PRECEDING PROTO QUALIFY RANGE RECURSIVE RESPECT RIGHT ROLLUP ROWS SELECT
SET SOME STRUCT TABLESAMPLE THEN TO TREAT TRUE UNBOUNDED UNION UNNEST USING WHEN WHERE WINDOW WITH
WITHIN
"""

_RESERVED: Final = frozenset(_KEYWORDS.split())
"""No name without backticks:
https://cloud.google.com/bigquery/docs/reference/standard-sql/lexical#reserved_keywords.
"""

_REMEMBERED: Final = 2_000
"""Texts. sqlglot takes milliseconds for each, and clients ask the same ones again and again."""

STATEMENTS: Final = (
    exp.Query,
    exp.Insert,
    exp.Update,
    exp.Delete,
    exp.Merge,
    exp.Create,
    exp.Alter,
    exp.Drop,
    exp.TruncateTable,
)


@lru_cache(_REMEMBERED)
def parse(sql: str) -> exp.Expression:
    """The one statement of the text, which belongs to all who ask for it: change a copy.

    Raises RestFailure (invalidQuery) for anything else; scripts are not supported.
    """
    if len(sql.encode()) > MAX_QUERY_BYTES:
        raise invalid_query(
            "The query is too large. The maximum standard SQL query length is"
            f" {MAX_QUERY_BYTES >> 10}K characters."
        )
    try:
        tokens = BigQuery().tokenize(sql)
        statements = [
            statement for statement in sqlglot.parse(sql, read="bigquery") if statement is not None
        ]
    except (SqlglotError, RecursionError) as error:
        raise invalid_query(f"Syntax error: {error}") from error
    if len(statements) != 1:
        raise invalid_query(f"{len(statements)} statements: the stand-in runs exactly one per job")
    if tokens and tokens[0].token_type == TokenType.FROM:
        raise invalid_query("Syntax error: Unexpected keyword FROM")
    for token, following in pairwise(tokens):
        if token.token_type == TokenType.L_PAREN and following.token_type == TokenType.FROM:
            raise invalid_query("Syntax error: Unexpected keyword FROM")
    for token in tokens:
        if token.token_type == TokenType.VAR and token.text.startswith("$"):
            raise invalid_query("Syntax error: Illegal input character $")
        if token.token_type in _FOREIGN_TOKENS:
            raise invalid_query(
                f"Syntax error: {_FOREIGN_TOKENS[token.token_type]} is not GoogleSQL (line"
                f" {token.line})"
            )
    (statement,) = statements
    if not isinstance(statement, STATEMENTS):
        raise invalid_query(f"Statement not supported by the stand-in: {type(statement).__name__}")
    _check(statement, tokens)
    if isinstance(statement, exp.Delete) and statement.args.get("tables"):
        statement.set(
            "this", statement.args["tables"][0]
        )  # DELETE without FROM, which DuckDB does not know
        statement.set("tables", None)
    return statement


def _check(statement: exp.Expression, tokens: list[Token]) -> None:
    if foreign := statement.find(exp.Lambda, exp.Comprehension):
        raise invalid_query(f"Syntax error: {type(foreign).__name__} is not supported")
    if isinstance(statement, exp.Insert) and statement.args.get("by_name"):
        raise invalid_query("Syntax error: INSERT BY NAME is not GoogleSQL")
    for identifier in statement.find_all(exp.Identifier):
        if (
            not identifier.quoted
            and identifier.name.upper() in _RESERVED
            and not _follows_a_dot(identifier)
        ):
            raise invalid_query(f"Syntax error: Unexpected keyword {identifier.name.upper()}")
    for name in _called(tokens):
        if name.upper() not in FUNCTIONS:
            raise invalid_query(f"Function not found: {name}")
    for node in statement.find_all(exp.Update, exp.Delete):
        if node.args.get("where") is None and not isinstance(node.parent, exp.When):
            raise invalid_query(f"{type(node).__name__.upper()} must have a WHERE clause")


def _follows_a_dot(identifier: exp.Identifier) -> bool:
    """Keywords are allowed there
    (https://cloud.google.com/bigquery/docs/reference/standard-sql/lexical#path_expressions).
    """
    column = identifier.parent
    return isinstance(column, exp.Dot) or (
        isinstance(column, exp.Column) and identifier.arg_key == "this" and bool(column.table)
    )


def _called(tokens: list[Token]) -> Iterator[str]:
    """Names before a parenthesis, unless they name a table: sqlglot's tree does not keep under
    which name a function was called.
    """
    for position, (token, following) in enumerate(pairwise(tokens)):
        if token.token_type != TokenType.VAR or following.token_type != TokenType.L_PAREN:
            continue
        first = position
        while first >= 2 and tokens[first - 1].token_type == TokenType.DOT:
            first -= 2
        before = tokens[first - 1].text.upper() if first else ""
        qualifiers = "".join(part.text for part in tokens[first:position])
        if before not in _BEFORE_TABLES and token.text.upper() not in _CLAUSES:
            yield token.text if qualifiers.upper() == "SAFE." else qualifiers + token.text


_BEFORE_TABLES: Final = {"INTO", "INSERT", "TABLE", "EXISTS", "VIEW"}
_CLAUSES: Final = {"VALUES", "OPTIONS", "USING", "EXCEPT", "REPLACE"}


@lru_cache(_REMEMBERED)
def named_positional_parameters(sql: str) -> str:
    """Each ? of the text as @_0, @_1, ...: sqlglot's tree does not keep their order."""
    try:
        marks = [
            token for token in BigQuery().tokenize(sql) if token.token_type == TokenType.PLACEHOLDER
        ]
    except SqlglotError as error:
        raise invalid_query(f"Syntax error: {error}") from error
    for number, mark in reversed(list(enumerate(marks))):
        sql = f"{sql[: mark.start]}@_{number}{sql[mark.end + 1 :]}"
    return sql


def referenced_tables(statement: exp.Expression) -> list[exp.Table]:
    """Tables by name, without common table expressions, UNNEST and what else may stand in FROM."""
    ctes = {cte.alias.lower() for cte in statement.find_all(exp.CTE)}
    return [
        table
        for table in statement.find_all(exp.Table)
        if isinstance(table.this, exp.Identifier)
        and not (not table.args.get("db") and table.name.lower() in ctes)
    ]


def resolve(table: exp.Table, project: str, default_dataset: str | None) -> tuple[str, str]:
    """(dataset, table) of a name with one, two or three parts. Raises RestFailure."""
    parts = [part.name for part in table.parts]
    if len(parts) == 1:
        if default_dataset is None:
            raise RestFailure(
                400,
                "invalid",
                f'Table "{parts[0]}" must be qualified with a dataset (e.g. dataset.table).',
            )
        return default_dataset, parts[0]
    if len(parts) == 3 and parts[0] != project:
        raise RestFailure(
            403,
            "accessDenied",
            f"Access Denied: Project {parts[0]}: the stand-in has project {project} only",
        )
    return parts[-2], parts[-1]
